//! What a service asks of the way to other services: its `connectivity`. Facts: Oakestra's
//! `{target_microservice_id, con_constraints: [{type, threshold, rigidness, convergence_time}]}`.

use std::time::Duration;

use serde_json::Value;

use crate::id::Id;
use crate::service::Service;
use crate::sla::Microservice;

/// The key of a service's description.
pub const CONNECTIVITY: &str = "connectivity";
/// What it is taken for, where it does not say.
const RIGIDNESS: f64 = 1.0;
const CONVERGENCE: f64 = 300.0;
/// A week, in seconds.
const CONVERGENCE_MAX: f64 = 604_800.0;

/// How long a round trip may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Milliseconds, more than 0.
    pub milliseconds: f64,
    /// 0 to 1: which part of the latest round trips must not take longer. 1: where it is not known, nothing is placed; less:
    /// where it is known comes first; 0: it is a wish.
    pub rigidness: f64,
    /// How long it may be otherwise after an instance has begun to run.
    pub convergence: Duration,
}

impl Bound {
    /// What both ask for.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        Self {
            milliseconds: self.milliseconds.min(other.milliseconds),
            rigidness: self.rigidness.max(other.rigidness),
            convergence: self.convergence.min(other.convergence),
        }
    }
}

/// A service that another one is to be near to.
#[derive(Debug, Clone, PartialEq)]
pub struct Connectivity {
    /// The id of a service, or a name: `db`, `db.namespace` of the same application, or the whole one.
    pub target: String,
    /// What all constraints ask for together.
    pub bound: Bound,
}

/// Something in a service's connectivity makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {expected}")]
pub struct InvalidConnectivity {
    /// Below the service: `connectivity[0].con_constraints[1].threshold`.
    pub path: String,
    pub expected: String,
}

impl Connectivity {
    /// All that a service asks for. Leaves out what makes no sense; in a checked SLA all does.
    #[must_use]
    pub fn of(sla: &Microservice) -> Vec<Self> {
        let all = sla.extra.get(CONNECTIVITY).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|value| Self::read(value, "").ok().flatten()).collect()
    }

    /// Reads an element of the list, which stands at `path`. `None`: it asks for nothing that is known here.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn read(value: &Value, path: &str) -> Result<Option<Self>, InvalidConnectivity> {
        let wrong = |below: &str, expected: &str| InvalidConnectivity {
            path: format!("{path}{below}"),
            expected: expected.to_owned(),
        };
        let element = value.as_object().ok_or_else(|| wrong("", "expected an object"))?;
        let target = element.get("target_microservice_id").and_then(Value::as_str).map_or("", str::trim);
        if !is_target(target) {
            let expected = "expected the id of a service, or its name: \"db\", \"db.namespace\" of the same application, \
                            or \"application.namespace.db.namespace\"";
            return Err(wrong(".target_microservice_id", expected));
        }
        let constraints = element.get("con_constraints").and_then(Value::as_array);
        let constraints =
            constraints.ok_or_else(|| wrong(".con_constraints", "expected a list of constraints"))?;
        let mut all: Option<Bound> = None;
        for (index, constraint) in constraints.iter().enumerate() {
            let below = format!(".con_constraints[{index}]");
            let found =
                bound(constraint).map_err(|(key, expected)| wrong(&format!("{below}{key}"), expected))?;
            if let Some(bound) = found {
                all = Some(all.map_or(bound, |all| all.tighter(bound)));
            }
        }
        Ok(all.map(|bound| Self { target: target.to_owned(), bound }))
    }

    /// Whether `service` is the target, where `own` is the service that asks.
    #[must_use]
    pub fn names(&self, service: &Service, own: &Service) -> bool {
        if self.target.parse::<Id>().is_ok_and(|id| id == service.id) {
            return true;
        }
        if self.target.matches('.').count() > 1 {
            return service.job_name.to_string() == self.target;
        }
        let (name, namespace) = self.target.split_once('.').unwrap_or((&self.target, &service.service_ns));
        service.application_id == own.application_id
            && service.service_name == name
            && service.service_ns == namespace
    }
}

fn is_target(target: &str) -> bool {
    let parts: Vec<_> = target.split('.').collect();
    matches!(parts.len(), 1 | 2 | 4) && parts.iter().all(|part| crate::name::is_valid_part(part))
}

/// `None`: of a type that is not known. Or which key is wrong.
fn bound(constraint: &Value) -> Result<Option<Bound>, (&'static str, &'static str)> {
    let constraint = constraint.as_object().ok_or(("", "expected an object"))?;
    let kind = constraint.get("type").and_then(Value::as_str);
    if kind.ok_or((".type", "expected text, such as \"latency\""))? != "latency" {
        return Ok(None);
    }
    let number = |key| match constraint.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_f64().map(Some),
    };
    let milliseconds = number("threshold").flatten().filter(|threshold| *threshold > 0.0);
    let rigidness = number("rigidness").map(|given| given.unwrap_or(RIGIDNESS));
    let convergence = number("convergence_time").map(|given| given.unwrap_or(CONVERGENCE));
    let within = |most: f64| move |value: &f64| (0.0..=most).contains(value);
    let convergence = convergence.filter(within(CONVERGENCE_MAX));
    Ok(Some(Bound {
        milliseconds: milliseconds.ok_or((".threshold", "expected milliseconds, more than 0"))?,
        rigidness: rigidness.filter(within(1.0)).ok_or((".rigidness", "expected a number from 0 to 1"))?,
        convergence: convergence
            .map(Duration::from_secs_f64)
            .ok_or((".convergence_time", "expected seconds, at most a week"))?,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{Bound, Connectivity};
    use crate::service::Service;

    fn read(value: &Value) -> Result<Option<Connectivity>, String> {
        Connectivity::read(value, "connectivity[0]").map_err(|invalid| invalid.to_string())
    }

    fn latency(keys: &Value) -> Value {
        let mut constraint =
            json!({ "type": "latency", "threshold": 20, "rigidness": 0.9, "convergence_time": 60 });
        for (key, value) in keys.as_object().unwrap() {
            constraint[key] = value.clone();
        }
        json!({ "target_microservice_id": "db", "con_constraints": [constraint] })
    }

    #[test]
    fn all_constraints_to_one_target_hold_together() {
        let value = json!({ "target_microservice_id": "db", "con_constraints": [
            { "type": "latency", "threshold": 20, "rigidness": 0.9, "convergence_time": 60 },
            { "type": "latency", "threshold": 30 },
            { "type": "of the future" },
        ] });
        let bound = Bound { milliseconds: 20.0, rigidness: 1.0, convergence: Duration::from_secs(60) };
        assert_eq!(read(&value), Ok(Some(Connectivity { target: "db".to_owned(), bound })));
        let nothing = json!({ "target_microservice_id": "db", "con_constraints": [] });
        assert_eq!(read(&nothing), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_path() {
        let wrong = |value: Value| read(&value).unwrap_err();
        for (keys, key) in [
            (json!({ "threshold": 0 }), "threshold"),
            (json!({ "threshold": "20ms" }), "threshold"),
            (json!({ "threshold": null }), "threshold"),
            (json!({ "rigidness": 1.1 }), "rigidness"),
            (json!({ "rigidness": "high" }), "rigidness"),
            (json!({ "convergence_time": -1 }), "convergence_time"),
            (json!({ "convergence_time": 1e9 }), "convergence_time"),
            (json!({ "type": 3 }), "type"),
        ] {
            let path = format!("connectivity[0].con_constraints[0].{key}: ");
            assert!(wrong(latency(&keys)).starts_with(&path), "{keys}");
        }
        assert_eq!(wrong(json!("db")), "connectivity[0]: expected an object");
        let constraint = json!({ "target_microservice_id": "db", "con_constraints": [1] });
        assert!(wrong(constraint).starts_with("connectivity[0].con_constraints[0]: "));
        assert!(wrong(json!({ "target_microservice_id": "db" })).contains(".con_constraints: "));
        for target in ["", "a b", "a.b.c", "a.b.c.d.e", "db."] {
            let value = json!({ "target_microservice_id": target, "con_constraints": [] });
            assert!(wrong(value).starts_with("connectivity[0].target_microservice_id: "), "{target}");
        }
    }

    fn service(id: &str, application: &str, name: &str) -> Service {
        let [app, app_ns, service, service_ns]: [&str; 4] =
            name.split('.').collect::<Vec<_>>().try_into().unwrap();
        serde_json::from_value(json!({
            "_id": id, "job_name": name, "applicationID": application, "app_name": app, "app_ns": app_ns,
            "service_name": service, "service_ns": service_ns, "microservice_name": service,
            "microservice_namespace": service_ns, "virtualization": "docker", "code": "c", "image": "c",
        }))
        .unwrap()
    }

    #[test]
    fn a_target_is_known_by_its_id_and_by_its_name() {
        let (shop, other) = ("6b033dd4d683569b0801fa17", "6b033dd4d683569b0801fa18");
        let web = service("6b033dd4d683569b0801fa21", shop, "shop.one.web.two");
        let db = service("6b033dd4d683569b0801fa22", shop, "shop.one.db.two");
        let foreign = service("6b033dd4d683569b0801fa23", other, "other.one.db.two");
        let found = |target: &str| {
            let value = json!({ "target_microservice_id": target, "con_constraints": [{ "type": "latency", "threshold": 1 }] });
            let connectivity = read(&value).unwrap().unwrap();
            [&db, &foreign].map(|service| connectivity.names(service, &web))
        };
        for target in ["6b033dd4d683569b0801fa22", "db", "db.two", "shop.one.db.two"] {
            assert_eq!(found(target), [true, false], "{target}");
        }
        assert_eq!(found("other.one.db.two"), [false, true]);
        assert_eq!(found("db.three"), [false, false]);
    }
}
