//! Looks again and again until the goals are reached, and tells what it sees.

use std::time::{Duration, Instant};

use protocol::service::Service;

use crate::api::{ApiError, Client, Fetched};
use crate::failure::Failure;
use crate::output::Mood;
use crate::rollout::verdict::{Missing, Verdict, failure};
use crate::rollout::{Change, Goal, Rollout, seconds};
use crate::terminal::{Terminal, plain};

/// Short at first, when things change fast; longer when something takes its time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Waits until the goals are reached, at most for `timeout`. `before`: the services before anything was done.
pub(crate) async fn watch(
    client: &Client,
    terminal: &Terminal,
    goals: Vec<Goal>,
    before: &[Service],
    timeout: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    let width = goals.iter().map(|goal| goal.label.len() + 3).max().unwrap_or_default();
    let mut rollout = Rollout::new(goals, before);
    let mut pause = FIRST_PAUSE;
    let mut cut_off = false;
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match look(client, rollout.goals()).await {
            Ok(services) => {
                if std::mem::take(&mut cut_off) {
                    terminal.say("the root answers again");
                }
                for change in rollout.observe(&services, start.elapsed()) {
                    terminal.say(&line(&change, width, terminal));
                    pause = FIRST_PAUSE;
                }
                match rollout.verdict(&services) {
                    Verdict::Done => return Ok(()),
                    Verdict::Hopeless(missing) => return Err(failure(&missing, start.elapsed(), true)),
                    Verdict::Waiting(missing) if left.is_zero() => {
                        return Err(failure(&missing, timeout, false));
                    }
                    Verdict::Waiting(missing) => terminal.on_interrupt(look_again(&missing)),
                }
            }
            // The work goes on without us, so a root that is away for a moment is no reason to give up.
            Err(ApiError::Unreachable(error)) if !left.is_zero() => {
                if !std::mem::replace(&mut cut_off, true) {
                    terminal.warn(&format!("{error}; trying again for {}", seconds(left)));
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause.min(left.max(Duration::from_millis(1)))).await;
        pause = (pause * 5 / 4).min(LONGEST_PAUSE);
    }
}

/// The services of the goals; one that is gone is left out.
async fn look(client: &Client, goals: &[Goal]) -> Result<Vec<Service>, ApiError> {
    let looks = goals.iter().map(|goal| async {
        match client.service(goal.service).await {
            Ok(Fetched { document, .. }) => Ok(Some(document)),
            Err(ApiError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    });
    Ok(futures::future::try_join_all(looks).await?.into_iter().flatten().collect())
}

/// `  0.9 s  hello/web/0   running    on 192.0.2.11  (after 0.7 s)`
fn line(change: &Change, width: usize, terminal: &Terminal) -> String {
    let paint = terminal.stderr_paint();
    let name = change.instance.map_or_else(|| change.service.clone(), |n| format!("{}/{n}", change.service));
    let word = format!("{:<9}", change.word);
    let word = match change.mood {
        Mood::Good => paint.good(&word),
        Mood::Changing => paint.changing(&word),
        Mood::Bad => paint.bad(&word),
        Mood::Plain => word,
    };
    let took =
        change.took.map(|took| paint.faint(&format!("  (after {})", seconds(took)))).unwrap_or_default();
    let at = format!("{:>7}", seconds(change.at));
    format!("{at}  {name:<width$}  {word}  {}{took}", plain(&change.detail)).trim_end().to_owned()
}

fn look_again(missing: &[Missing]) -> String {
    let names: Vec<_> = missing.iter().take(3).map(|missing| missing.name.as_str()).collect();
    format!("stopped watching, the work goes on ({} not ready)  hypha get instances", names.join(", "))
}
