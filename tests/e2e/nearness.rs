//! Services that are to be near each other, on workers of which some have long cables.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::application::Application;
use integration::{Lab, eventually};
use serde_json::json;

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[(
    "what_is_to_be_near_runs_where_round_trips_are_short_and_moves_when_they_become_long",
    what_is_to_be_near_runs_where_round_trips_are_short,
)];

/// One way.
const DELAY: Duration = Duration::from_millis(20);
/// For measurements of before to have become few.
const PATIENCE: Duration = Duration::from_secs(300);

fn what_is_to_be_near_runs_where_round_trips_are_short(lab: &mut Lab) -> Result<()> {
    let names: Vec<_> = lab.workers.iter().map(|worker| worker.name.clone()).collect();
    let [first, second, third] = names.as_slice() else { bail!("three workers are needed: {names:?}") };
    let far = lab.underlay.lengthen(third, DELAY)?;
    wait_until_far(lab, third)?;
    let application = Application::deploy_with(lab, "near", 3, |[web, client]| {
        client["constraints"] = json!([{"type": "direct", "node": first}]);
        web["connectivity"] = json!([{
            "target_microservice_id": "client",
            "con_constraints": [
                {"type": "latency", "threshold": 15, "rigidness": 1, "convergence_time": 0},
            ],
        }]);
    })?;
    let on = |lab: &Lab| -> Result<Vec<usize>> {
        let system = application.system(lab, 3)?;
        Ok(system.instances.iter().map(|instance| instance.worker).collect())
    };
    let workers = on(lab)?;
    ensure!(!workers.contains(&2), "where it is far: {workers:?}");
    ensure!(workers.contains(&1), "all on one worker, though two are near: {workers:?}");
    let why = lab.control.hypha(&["why", "near/web"])?;
    ensure!(why.contains("wants 15 ms to client") && why.contains(third), "{why}");

    let farther = lab.underlay.lengthen(second, DELAY)?;
    eventually(PATIENCE, "all servers beside the client", || match on(lab) {
        Ok(workers) if workers == [0, 0, 0] => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    application.system(lab, 3)?.wait_for_all_answers()?;
    lab.underlay.shorten(second, farther)?;
    lab.underlay.shorten(third, far)?;
    application.remove(lab)
}

/// Until the cluster knows, and the root from it.
fn wait_until_far(lab: &Lab, name: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{name} to be far from the others"), || {
        let workers = lab.control.hypha_json(&["get", "workers"]).map_err(|error| format!("{error:#}"))?;
        let worker = workers.as_array().and_then(|all| all.iter().find(|it| it["name"] == name));
        let rtt =
            worker.context("no such worker").map_err(|error| format!("{error:#}: {workers}"))?["rtt_ms"]
                .as_f64();
        if rtt.is_some_and(|rtt| rtt > 30.0) { Ok(()) } else { Err(format!("{rtt:?} ms")) }
    })
}
