//! Padded pings to another node, which show what the path carries where no router says so.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::search::{First, Search};
use crate::echo::{Echo, identifier};

/// How long an answer is waited for. Each size is tried twice.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: u32 = 2;
/// How often in a row a size that was carried before must be lost.
const DOUBTS: u32 = 3;

/// The largest IP packet, from `least` to `most` bytes, that reaches `node` and comes back; nothing if none does.
pub(super) async fn measure(node: IpAddr, least: u16, most: u16) -> io::Result<Option<u16>> {
    let pings = Pings::to(node)?;
    let mut search = match First::of(least, most, &pings.round(&[least, most]).await?) {
        First::Silent => return Ok(None),
        First::Whole => return Ok(Some(most)),
        First::Narrow(search) => search,
    };
    narrow(&pings, &mut search).await?;
    Ok(Some(search.carried()))
}

/// Whether packets of `assumed` bytes, which have come back before, no longer do while those of `least` bytes do; then what
/// [`measure`] finds. Large packets are also lost where a queue is full, so a few of them do not say it.
pub(super) async fn look(node: IpAddr, least: u16, assumed: u16) -> io::Result<Option<u16>> {
    let pings = Pings::to(node)?;
    let mut search = None;
    for _ in 0..DOUBTS {
        match First::of(least, assumed, &pings.round(&[least, assumed]).await?) {
            First::Silent | First::Whole => return Ok(None),
            First::Narrow(found) => search = Some(found),
        }
    }
    let Some(mut search) = search else { return Ok(None) };
    narrow(&pings, &mut search).await?;
    Ok(Some(search.carried()))
}

async fn narrow(pings: &Pings, search: &mut Search) -> io::Result<()> {
    loop {
        let sizes = search.sizes();
        if sizes.is_empty() {
            return Ok(());
        }
        search.round(&sizes, &pings.round(&sizes).await?);
    }
}

/// Requests to one node that say their size in their number.
struct Pings(Echo);

impl Pings {
    fn to(node: IpAddr) -> io::Result<Self> {
        Echo::to(node, identifier()).map(Self)
    }

    /// Which of these sizes come back.
    async fn round(&self, sizes: &[u16]) -> io::Result<Vec<u16>> {
        let mut answered = Vec::new();
        for _ in 0..TRIES {
            for size in sizes.iter().filter(|size| !answered.contains(*size)) {
                self.0.request(*size, *size);
            }
            let deadline = Instant::now() + PATIENCE;
            while answered.len() < sizes.len() {
                let Ok(answer) = timeout_at(deadline, self.0.answer()).await else { break };
                answered.extend(answer?.filter(|size| sizes.contains(size) && !answered.contains(size)));
            }
            if sizes.iter().max().is_some_and(|largest| answered.contains(largest)) {
                break;
            }
        }
        Ok(answered)
    }
}
