//! What becomes of the instances of an earlier run: pure, from what was recorded and what containerd has.

use std::collections::HashMap;

use protocol::name::InstanceName;

use crate::instance::Found;
use crate::runtime::Task;
use crate::state::Record;

/// What containerd has of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    Nothing,
    /// A container without a task.
    Container,
    Task(Task),
}

/// What is left of the instance with this `record`, seen from a machine whose boot is `boot_id`. The start time of a
/// running process is asked of `since`.
#[must_use]
pub fn examine(
    record: Option<&Record>,
    observed: &Observed,
    boot_id: &str,
    since: impl Fn(u32) -> std::time::SystemTime,
) -> Found {
    match (observed, record) {
        (Observed::Task(Task::Running { pid }), _) => Found::Running { pid: *pid, since: since(*pid) },
        (Observed::Task(Task::Stopped { code, at, .. }), _) => Found::Stopped { code: *code, at: *at },
        // Nobody wants it, or nobody remembers that somebody did.
        (_, None) => Found::Leftover,
        (_, Some(record)) if record.boot_id != boot_id => Found::Rebooted,
        (Observed::Task(Task::Created { .. }) | Observed::Nothing, Some(_)) => Found::Unfinished,
        // A task only goes without its container when its shim was killed.
        (Observed::Container, Some(_)) => Found::Vanished,
    }
}

/// What happened to processes that were running while no events came, by the tasks that containerd has now.
#[must_use]
pub fn missed<'a>(
    expected: &'a HashMap<InstanceName, u32>,
    tasks: &'a HashMap<InstanceName, Task>,
) -> Vec<(&'a InstanceName, Missed)> {
    let missed = |name: &InstanceName, expected: u32| match tasks.get(name) {
        Some(Task::Running { pid }) if *pid == expected => None,
        Some(Task::Stopped { pid, code, at }) if *pid == expected => {
            Some(Missed::Exited { pid: *pid, code: *code, at: *at })
        }
        _ => Some(Missed::Vanished { pid: expected }),
    };
    expected.iter().filter_map(|(name, pid)| Some((name, missed(name, *pid)?))).collect()
}

/// An end that nobody was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missed {
    Exited { pid: u32, code: u32, at: std::time::SystemTime },
    Vanished { pid: u32 },
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::SystemTime;

    use super::{Missed, Observed, examine, missed};
    use crate::assignment::Assignment;
    use crate::instance::Found;
    use crate::runtime::Task;
    use crate::state::Record;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn what_was_found_decides_what_becomes_of_it() {
        let assignment =
            Assignment::parse(br#"{"job_name":"a.b.c.d","instance_number":1,"code":"x"}"#).unwrap();
        let record =
            |boot_id: &str| Some(Record { assignment: assignment.clone(), boot_id: boot_id.to_owned() });
        let running = Observed::Task(Task::Running { pid: 7 });
        let created = Observed::Task(Task::Created { pid: 7 });
        let stopped = Observed::Task(Task::Stopped { pid: 7, code: 3, at: EPOCH });
        for (record, observed, found) in [
            (record("now"), running.clone(), Found::Running { pid: 7, since: EPOCH }),
            (None, running, Found::Running { pid: 7, since: EPOCH }),
            (record("now"), stopped.clone(), Found::Stopped { code: 3, at: EPOCH }),
            (None, stopped, Found::Stopped { code: 3, at: EPOCH }),
            (record("now"), created.clone(), Found::Unfinished),
            (record("now"), Observed::Nothing, Found::Unfinished),
            (record("now"), Observed::Container, Found::Vanished),
            (record("before"), Observed::Container, Found::Rebooted),
            (record("before"), Observed::Nothing, Found::Rebooted),
            (None, created, Found::Leftover),
            (None, Observed::Container, Found::Leftover),
        ] {
            assert_eq!(
                examine(record.as_ref(), &observed, "now", |_| EPOCH),
                found,
                "{record:?} {observed:?}"
            );
        }
    }

    #[test]
    fn an_end_that_nobody_told_of_is_found() {
        let name = |number: u32| format!("a.b.c.d.instance.{number}").parse().unwrap();
        let expected = HashMap::from([(name(1), 1), (name(2), 2), (name(3), 3), (name(4), 4)]);
        let tasks = HashMap::from([
            (name(1), Task::Running { pid: 1 }),
            (name(2), Task::Stopped { pid: 2, code: 9, at: EPOCH }),
            (name(3), Task::Running { pid: 33 }),
        ]);
        let mut found = missed(&expected, &tasks);
        found.sort_by_key(|(name, _)| name.number);
        assert_eq!(
            found,
            [
                (&name(2), Missed::Exited { pid: 2, code: 9, at: EPOCH }),
                (&name(3), Missed::Vanished { pid: 3 }),
                (&name(4), Missed::Vanished { pid: 4 }),
            ]
        );
    }
}
