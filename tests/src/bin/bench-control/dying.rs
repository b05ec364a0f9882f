//! How long a client is still sent to an instance that has died.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::application::Application;
use integration::{Lab, Netns, interrupt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deploying::milliseconds;
use crate::figure::{Figures, What};

/// Between two connections, each of which waits for no other.
const PAUSE: Duration = Duration::from_millis(5);
/// The client goes on for so long, which is longer than anybody needs to hear of it, and waits so long for an answer.
const WATCHED: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_millis(900);
/// Failures that are so far apart have different causes.
const APART: Duration = Duration::from_millis(250);

/// Leaves the service with one instance.
pub(crate) fn rounds(lab: &Lab, application: &Application, rounds: u32, figures: &mut Figures) -> Result<()> {
    for _ in 0..rounds {
        interrupt::check()?;
        application.scale(lab, 2)?;
        let system = application.system(lab, 2)?;
        let target = SocketAddr::from((system.service_ip, 80));
        let client = &system.client.container.netns;
        let died = &system.instances[0].container;
        let pid = Pid::from_raw(died.pid.try_into().context("a process id")?);
        let killed = Instant::now();
        kill(pid, Signal::SIGKILL)
            .with_context(|| format!("kill {pid}, the first process of an instance"))?;
        let failed = failures(client, target, killed)?;
        figures.add(What::Avoided, milliseconds(last_of_first(&failed)));
        application.scale(lab, 1)?;
    }
    Ok(())
}

/// After which times connections were begun that did not come about, from the first to the last.
fn failures(client: &Netns, target: SocketAddr, start: Instant) -> Result<Vec<Duration>> {
    thread::scope(|scope| {
        let mut tries = Vec::new();
        while start.elapsed() < WATCHED {
            tries.push(scope.spawn(move || {
                client.run(|| {
                    let begun = start.elapsed();
                    TcpStream::connect_timeout(&target, ANSWER).err().map(|_refused| begun)
                })
            }));
            thread::sleep(PAUSE);
        }
        let results =
            tries.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let mut failed: Vec<_> = results.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        failed.sort();
        Ok(failed)
    })
}

/// When the last of those failed that follow the death. Later ones are of the instance that comes in the place of the dead one,
/// and gets connections from its start on, when it may not listen yet.
fn last_of_first(failed: &[Duration]) -> Duration {
    failed.iter().fold(Duration::ZERO, |last, next| if *next - last < APART { *next } else { last })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::last_of_first;

    #[test]
    fn failures_that_come_much_later_are_of_another_instance() {
        let times = |milliseconds: &[u64]| {
            milliseconds.iter().copied().map(Duration::from_millis).collect::<Vec<_>>()
        };
        for (failed, expected) in
            [(&[][..], 0), (&[2, 9, 200, 390], 390), (&[5, 20, 1000, 1005], 20), (&[800], 0)]
        {
            assert_eq!(last_of_first(&times(failed)), Duration::from_millis(expected));
        }
    }
}
