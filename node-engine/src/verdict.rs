//! How an instance that ended is reported: which state, and in words that help the one who reads them.

use std::time::{Duration, SystemTime};

use protocol::status::Status;

use crate::assignment::Assignment;

/// A process that ends with an error this soon never served: the deployment has failed, the service has not died.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The end of a container's first process. What is `None` happened while nobody watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub code: Option<u32>,
    pub since: Option<SystemTime>,
    pub at: Option<SystemTime>,
    pub out_of_memory: bool,
}

impl Exit {
    /// Nothing when the process is said to have ended before it began: the start of one that is gone before anybody
    /// looked at it is taken for the moment of the look, and clocks are set.
    fn lifetime(&self) -> Option<Duration> {
        Some(self.at?.duration_since(self.since?).unwrap_or_default())
    }
}

/// The state of an instance after `exit`, and why.
#[must_use]
pub fn verdict(assignment: &Assignment, exit: &Exit, last_line: &str) -> (Status, String) {
    let Some(code) = exit.code else {
        return (Status::Dead, "the process ended while nobody watched; how is not known".to_owned());
    };
    if code == 0 && assignment.one_shot {
        return (Status::Completed, format!("the process ended with code 0{}", after(exit)));
    }
    let status = match exit.lifetime() {
        Some(lifetime) if lifetime < AT_ONCE && code != 0 => Status::Failed,
        _ => Status::Dead,
    };
    let how = if exit.out_of_memory {
        match assignment.limits.enforced_memory_mb() {
            None => {
                format!("the kernel ended the process because the worker ran out of memory{}", after(exit))
            }
            Some(limit) => {
                format!(
                    "the kernel ended the process: it needs more than its {limit} MB of memory{}",
                    after(exit)
                )
            }
        }
    } else if let Some(signal) = signal_of(code) {
        format!("the process was ended by {signal}{}", after(exit))
    } else if code == 0 {
        format!(
            "the process ended by itself with code 0{}; a service is expected to keep running (`one_shot` is for jobs that end)",
            after(exit)
        )
    } else {
        format!("the process ended with code {code}{}", after(exit))
    };
    let last_line = last_line.trim();
    if last_line.is_empty() { (status, how) } else { (status, format!("{how}: {last_line}")) }
}

fn after(exit: &Exit) -> String {
    exit.lifetime().map_or_else(String::new, |lifetime| match lifetime.as_secs_f64() {
        seconds if seconds < 10.0 => format!(" after {seconds:.1} s"),
        seconds if seconds < 600.0 => format!(" after {seconds:.0} s"),
        seconds => format!(" after {:.0} min", seconds / 60.0),
    })
}

/// Runtimes report death by signal N as code 128 + N.
fn signal_of(code: u32) -> Option<String> {
    let number = code.checked_sub(128).filter(|number| (1..=64).contains(number))?;
    let name = i32::try_from(number).ok().and_then(|number| nix::sys::signal::Signal::try_from(number).ok());
    Some(name.map_or_else(|| format!("signal {number}"), |name| name.as_str().to_owned()))
}

/// An error with its causes, in one line: the outermost says what was being done, the innermost what the system said.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat their cause in their own words.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use protocol::status::Status;

    use super::{Exit, verdict};
    use crate::assignment::{Assignment, Limits};

    fn assignment(one_shot: bool) -> Assignment {
        Assignment {
            name: "a.b.c.d.instance.0".parse().unwrap(),
            image: "x".to_owned(),
            command: Vec::new(),
            environment: Vec::new(),
            ports: String::new(),
            limits: Limits { cpus: 0, memory_mb: 16 },
            one_shot,
            privileged: false,
            platform: None,
        }
    }

    fn exit(code: u32, lived_ms: u64) -> Exit {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        Exit {
            code: Some(code),
            since: Some(since),
            at: Some(since + Duration::from_millis(lived_ms)),
            out_of_memory: false,
        }
    }

    #[test]
    fn a_process_that_was_gone_before_its_start_was_read_has_failed() {
        let ended = exit(3, 0);
        let before = ended.at.map(|at| at - Duration::from_millis(20));
        let (status, detail) = verdict(&assignment(false), &Exit { at: before, ..ended }, "no configuration");
        assert_eq!(status, Status::Failed);
        assert_eq!(detail, "the process ended with code 3 after 0.0 s: no configuration");
    }

    #[test]
    fn each_end_has_its_state_and_its_words() {
        let out_of_memory = Exit { out_of_memory: true, ..exit(137, 5_000) };
        let unknown = Exit { code: None, since: None, at: None, out_of_memory: false };
        for (one_shot, exit, last_line, status, words) in [
            (true, exit(0, 5_000), "", Status::Completed, "ended with code 0 after 5.0 s"),
            (true, exit(3, 5_000), "", Status::Dead, "ended with code 3 after 5.0 s"),
            (false, exit(0, 100), "", Status::Dead, "`one_shot` is for jobs"),
            (
                false,
                exit(1, 100),
                "bind: address in use\n",
                Status::Failed,
                "code 1 after 0.1 s: bind: address in use",
            ),
            (false, exit(1, 1_200_000), "", Status::Dead, "code 1 after 20 min"),
            (false, exit(139, 60_000), "", Status::Dead, "ended by SIGSEGV after 60 s"),
            (false, out_of_memory, "", Status::Dead, "more than its 16 MB"),
            (false, unknown, "", Status::Dead, "how is not known"),
        ] {
            let (actual, detail) = verdict(&assignment(one_shot), &exit, last_line);
            assert_eq!(actual, status, "{detail}");
            assert!(detail.contains(words), "{detail:?} does not say {words:?}");
        }
    }
}
