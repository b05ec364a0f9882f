//! What hangs at the interfaces, and whether a daemon tends it.

use super::{Check, Verdict};
use crate::api::client;
use crate::app::Paths;
use crate::config::Config;
use crate::datapath::{Programs, Tables};
use crate::hooks::{self, Attached, Hook};
use crate::net::{Links, Wish};
use crate::report::{Report, SessionState};

pub(super) async fn examine(paths: &Paths, config: Option<&Config>) -> Vec<Check> {
    let Ok(links) = Links::open() else { return Vec::new() };
    let report = client::report(&paths.socket).await.ok().flatten();
    let mut checks = vec![daemon(report.as_ref())];
    let is_in_process = report.is_some_and(|report| report.mode == "userspace");
    match Tables::open(&paths.bpffs) {
        Ok(tables) => checks.extend(judge(&hooks::look(&tables, &links).await)),
        Err(_there_is_none) => {
            let evidence = if is_in_process {
                "there are none: the daemon itself forwards packets"
            } else {
                "no data plane is loaded yet"
            };
            checks.push(Check::fine("attached.programs", evidence));
            let named = config.and_then(|config| config.default_interface.as_deref());
            let wish = Wish { named, public: None, current: None, towards: None };
            if let Ok(uplink) = links.uplink(wish).await {
                let there = hooks::at(&uplink.name, uplink.ifindex, &links, &Programs::read()).await;
                checks.extend(
                    there
                        .iter()
                        .filter(|program| !program.ours)
                        .map(|program| foreign(&uplink.name, program)),
                );
            }
        }
    }
    checks
}

fn daemon(report: Option<&Report>) -> Check {
    let id = "attached.daemon";
    let Some(daemon) = report.and_then(|report| report.daemon.as_ref()) else {
        return Check::fine(id, "no daemon runs");
    };
    match &daemon.session {
        SessionState::Down { reason, .. } => Check::gap(
            id,
            Verdict::Degraded,
            format!("pid {} has no cluster: {reason}", daemon.pid),
            "known connections go on; services that are new here are not found",
            "see whether the cluster's address and port in netcfg.json are right and reachable",
        ),
        _ => Check::fine(id, format!("pid {} runs", daemon.pid)),
    }
}

/// One check for each interface where something is wrong, and for each program of others.
fn judge(hooks: &[Hook]) -> Vec<Check> {
    let id = "attached.programs";
    let mut checks = Vec::new();
    for hook in hooks {
        let interface = hook.interface.clone().unwrap_or_else(|| format!("index {}", hook.ifindex));
        let program = &hook.program;
        let (evidence, effect) = match (&hook.interface, hook.times()) {
            (Some(_), 1) => continue,
            (None, _) => (
                format!("interface {interface} is gone, or in another network namespace"),
                "its container is not reached",
            ),
            (_, 0) => (format!("{program} is not at {interface}"), "what comes in there is not translated"),
            (_, times) => {
                (format!("{program} is {times} times at {interface}"), "packets are handled by old tables")
            }
        };
        let remedy = "start netmanager, which attaches it; a running one does so within 10 s";
        checks.push(Check::gap(id, Verdict::Broken, evidence, effect, remedy));
    }
    if checks.is_empty() {
        checks.push(Check::fine(id, format!("{} interfaces, each with our program once", hooks.len())));
    }
    for hook in hooks {
        let interface = hook.interface.as_deref().unwrap_or_default();
        checks.extend(hook.foreign().map(|program| foreign(interface, program)));
    }
    checks
}

fn foreign(interface: &str, program: &Attached) -> Check {
    let name = if program.name.is_empty() { "without a name" } else { &program.name };
    let place = program.place.name();
    Check::gap(
        "attached.foreign",
        Verdict::Degraded,
        format!("program {name} (id {}) is at {interface} by {place}", program.id),
        "it sees packets before or after ours, and may drop or take them",
        "ask who has attached it (`bpftool prog show`); none is needed for the overlay",
    )
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};
    use crate::hooks::{Attached, Hook, Place};

    fn attached(name: &str, ours: bool) -> Attached {
        Attached { place: Place::Tcx, name: name.into(), id: 7, tag: String::new(), ours }
    }

    fn hook(attached: Vec<Attached>) -> Hook {
        Hook { interface: Some("hy0".into()), ifindex: 3, program: "from_container".into(), attached }
    }

    #[test]
    fn our_program_belongs_there_exactly_once() {
        let ours = || attached("from_container", true);
        for (there, verdict) in [
            (vec![], Verdict::Broken),
            (vec![ours()], Verdict::Fine),
            (vec![ours(), ours()], Verdict::Broken),
        ] {
            let checks = judge(&[hook(there)]);
            assert_eq!((checks.len(), checks[0].verdict), (1, verdict), "{checks:?}");
        }
    }

    #[test]
    fn a_program_of_others_is_named_and_breaks_nothing() {
        let checks = judge(&[hook(vec![attached("from_container", true), attached("spy", false)])]);
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Fine, Verdict::Degraded]);
        assert!(checks[1].evidence.contains("spy"), "{checks:?}");
    }
}
