//! `netmanager cleanup`: takes everything away that netmanager has made on this node, also what a crash has left.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, bail};

use crate::api::Socket;
use crate::app::Paths;
use crate::bare;
use crate::lock::Lock;
use crate::net::{Links, MERGING_LINK, OWN_LINK};
use crate::nft;
use crate::plane::Plane;
use crate::state::Store;

/// Goes on after a failure, so that as little as possible is left, and reports all failures at the end.
///
/// # Errors
/// When a daemon runs, or something could not be removed.
pub async fn run(paths: &Paths, out: &mut impl Write) -> Result<()> {
    let store = Store::at(&paths.state_dir);
    // Held until the end: no daemon starts meanwhile. Without a directory there is nothing to hold.
    let _lock = match store.dir().exists() {
        true => Some(Lock::take(store.dir())?),
        false => None,
    };
    if let Some(pid) = Socket::server(&paths.socket).await {
        bail!("a netmanager (pid {pid}) serves {}; stop it first", paths.socket.display());
    }
    let mut removed = Vec::new();
    let mut failures = Vec::new();
    let mut note = |result: Result<Vec<String>>| match result {
        Ok(what) => removed.extend(what),
        Err(error) => failures.push(format!("{error:#}")),
    };
    note(links().await);
    note(bare::remove(protocol::port::TUNNEL).await.map_err(Into::into));
    note(rules().await);
    note(datapath(paths));
    note(socket(paths));
    // Last, since the lock goes with it.
    note(state(&store));
    for what in &removed {
        writeln!(out, "removed {what}")?;
    }
    if !failures.is_empty() {
        bail!("not everything could be removed:\n  {}", failures.join("\n  "));
    }
    if removed.is_empty() {
        writeln!(out, "There was nothing to remove.")?;
    } else {
        // Others may have come to rely on it, and nobody can tell.
        writeln!(out, "IP forwarding and accept_ra are left as they are.")?;
    }
    Ok(())
}

async fn links() -> Result<Vec<String>> {
    let links = Links::open()?;
    let mut removed = Vec::new();
    for link in links.of_containers().await? {
        if links.remove(&link.name).await? {
            let container = link.alias.map(|alias| format!(" of {alias}")).unwrap_or_default();
            removed.push(format!("link {}{container}, with its addresses and routes", link.name));
        }
    }
    if links.disconnect_itself().await? {
        removed.push(format!("link {OWN_LINK} of the node itself, with its addresses and routes"));
    }
    if links.merge_no_more().await? {
        removed.push(format!("link {MERGING_LINK}, which listened on the tunnel's port"));
    }
    Ok(removed)
}

async fn rules() -> Result<Vec<String>> {
    let removed = nft::remove().await?;
    Ok(removed.into_iter().map(|family| format!("nftables table {family} {}", nft::TABLE)).collect())
}

fn datapath(paths: &Paths) -> Result<Vec<String>> {
    let dir = &paths.bpffs;
    Plane::remove_all(dir).with_context(|| format!("remove the data plane pinned under {}", dir.display()))
}

fn state(store: &Store) -> Result<Vec<String>> {
    let files = store.remove()?;
    Ok(files.into_iter().map(|file| file.display().to_string()).collect())
}

fn socket(paths: &Paths) -> Result<Vec<String>> {
    let path = paths.socket.display();
    match fs::remove_file(&paths.socket) {
        Ok(()) => Ok(vec![path.to_string()]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("remove {path}")),
    }
}
