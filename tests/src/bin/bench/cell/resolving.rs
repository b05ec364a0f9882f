//! A node that answers for services that it is asked for, by netmanager's slow path.

use std::net::IpAddr;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use integration::Netns;
use netmanager::datapath::{Backend, Datapath, Policy};
use netmanager::net::Links;
use netmanager::slowpath::{News, SlowPath};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs `work` while the slow path of `node` runs; `known` says which instances are behind an address.
pub(super) fn while_resolving<T: Send>(
    node: &Netns,
    datapath: &mut Datapath,
    known: impl Fn(IpAddr) -> Vec<Backend> + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stop = CancellationToken::new();
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let stopped = stop.clone();
        let resolving = scope.spawn(move || node.run(|| resolve(datapath, known, &ready, &stopped))?);
        let done = is_ready.recv_timeout(Duration::from_secs(10));
        let done = done.map_err(|_silent| anyhow!("the slow path does not start")).and_then(|()| work());
        stop.cancel();
        match resolving.join() {
            Ok(resolved) => resolved.and(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn resolve(
    datapath: &mut Datapath,
    known: impl Fn(IpAddr) -> Vec<Backend>,
    ready: &Sender<()>,
    stop: &CancellationToken,
) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let links = Links::open()?;
        let mut slow_path = SlowPath::in_kernel(&links, datapath, &tasks, stop.clone()).await?;
        ready.send(()).context("say that the slow path runs")?;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                news = slow_path.next() => {
                    let News::Missed(address) = news else { continue };
                    datapath.publish_service(address, Policy::RoundRobin, &known(address))?;
                    slow_path.settled(address);
                }
            }
        }
        datapath.set_slow_path(None)?;
        tasks.close();
        tasks.wait().await;
        Ok(())
    })
}
