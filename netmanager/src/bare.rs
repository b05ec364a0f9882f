//! Bare packets, merged by the kernel before the programs have them, where it has FOU ([`crate::net::fou`]): their inner IPv4,
//! whoever has sent them.
//!
//! FOU's socket would take the outer headers off whatever it gets and give the rest to this node's stack, past its firewall.
//! What comes to uplinks our programs take before. All else a rule keeps away ([`nft::close`]), which is there before the
//! socket and goes after it.

use std::process::Stdio;

use tokio::process::Command;

use crate::error::chain;
use crate::net::NetError;
use crate::net::fou::{Fou, Outer};
use crate::nft::{self, NftError};

/// Why bare packets are not merged although the kernel can, or still are.
#[derive(Debug, thiserror::Error)]
pub enum MergingError {
    #[error(transparent)]
    Kernel(#[from] NetError),
    #[error(transparent)]
    Rule(#[from] NftError),
}

/// The merging of bare packets, as far as this process has brought it about. Its methods act on the network namespace of the
/// calling thread.
#[derive(Debug, Default)]
pub struct Merging {
    /// What carries them now; nothing while they are not merged.
    outer: Option<Outer>,
    /// Whether somebody was asked to load the module: it was, or there is none.
    has_asked_for_module: bool,
}

impl Merging {
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.outer.is_some()
    }

    /// Has the kernel merge what comes to this port in such packets, and no others. Done again it mends what somebody has taken
    /// away meanwhile. Says whether bare packets are merged: not every kernel can.
    ///
    /// # Errors
    /// When somebody else has the port, or the rule is refused. Then there is neither rule nor socket.
    pub async fn keep(&mut self, outer: Outer, port: u16) -> Result<bool, MergingError> {
        if self.outer.is_some_and(|before| before != outer) {
            self.end(port).await?;
        }
        let Some(fou) = self.find().await? else { return Ok(false) };
        let kept = async {
            nft::close(port).await?;
            Ok(fou.merge_on(outer, port)?)
        };
        if let Err(error) = kept.await {
            self.outer = None;
            // The rule may keep packets from whoever has the port, but goes only if the socket is gone.
            if fou.merge_no_more(outer, port).is_ok() {
                nft::reopen().await.ok();
            }
            return Err(error);
        }
        self.outer = Some(outer);
        Ok(true)
    }

    /// Ends it, if it is on: the port is free.
    ///
    /// # Errors
    /// When the kernel or nft refuses.
    pub async fn end(&mut self, port: u16) -> Result<(), MergingError> {
        let Some(outer) = self.outer else { return Ok(()) };
        if let Some(fou) = Fou::open()? {
            fou.merge_no_more(outer, port)?;
        }
        nft::reopen().await?;
        self.outer = None;
        Ok(())
    }

    async fn find(&mut self) -> Result<Option<Fou>, NetError> {
        if let Some(fou) = Fou::open()? {
            return Ok(Some(fou));
        }
        if std::mem::replace(&mut self.has_asked_for_module, true) {
            return Ok(None);
        }
        load_module().await;
        Fou::open()
    }
}

/// The kernel loads it for nobody who merely asks for it. That there is none is usual.
async fn load_module() {
    let mut modprobe = Command::new("modprobe");
    modprobe.args(["-q", "fou"]).kill_on_drop(true);
    modprobe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match modprobe.status().await {
        Ok(status) => tracing::debug!(%status, "modprobe was asked for FOU"),
        Err(error) => tracing::debug!(%error, "modprobe cannot be asked for FOU"),
    }
}

/// Ends what an earlier life has left, whatever carried packets then. Says what there was.
///
/// # Errors
/// When the kernel or nft refuses.
pub async fn remove(port: u16) -> Result<Vec<String>, MergingError> {
    let mut removed = Vec::new();
    if let Some(fou) = Fou::open()? {
        for outer in Outer::BOTH {
            if fou.merge_no_more(outer, port)? {
                removed.push(format!("the merging of bare packets, for which FOU listened on port {port}"));
            }
        }
    }
    if nft::reopen().await? {
        removed.push(format!("nftables table inet {}", nft::CLOSED));
    }
    Ok(removed)
}

/// Whether the kernel merges what comes to this port; what cannot be asked does not.
#[must_use]
pub fn is_merged(port: u16) -> bool {
    let look = || -> Result<bool, NetError> {
        let Some(fou) = Fou::open()? else { return Ok(false) };
        Ok(fou.merges(Outer::V4, port)? || fou.merges(Outer::V6, port)?)
    };
    look().unwrap_or_else(|error| {
        tracing::debug!(error = chain(&error), "cannot tell whether bare packets are merged");
        false
    })
}
