//! What a service asks of the place where it runs, beyond amounts: its `constraints`, the drivers of its `volumes` and its
//! `arch`. Facts: Oakestra's constraint object.

use std::fmt;

use serde_json::Value;

use crate::location::Location;
use crate::sla::Microservice;

/// How far an answer gets and back in a millisecond at the very best: light in fibre goes 200 km one way.
const KILOMETRES_PER_MILLISECOND: f64 = 100.0;

/// One constraint that can be judged.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// The one cluster, if it is named, and the hosts, of which any will do; none: any host.
    Direct {
        cluster: Option<String>,
        nodes: Vec<String>,
    },
    /// Any of these clusters.
    Clusters {
        allowed: Vec<String>,
    },
    /// Workers with all of these addons.
    Addons {
        needs: Vec<String>,
    },
    Near(Near),
}

/// Not farther than this from a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    pub location: Location,
    /// More than 0.
    pub kilometres: f64,
    /// What was asked for was a latency in milliseconds, and `kilometres` is as far as light gets.
    pub milliseconds: Option<f64>,
}

/// What was asked for: `20 km of 48.26,11.67`.
impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, kilometres, milliseconds } = self;
        match milliseconds {
            None => write!(f, "{kilometres} km of {location}"),
            Some(milliseconds) => write!(f, "{milliseconds} ms of {location}"),
        }
    }
}

/// A key of a constraint that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {expected}")]
pub struct InvalidConstraint {
    pub key: &'static str,
    pub expected: &'static str,
}

impl Constraint {
    /// `None` for what says nothing, and for what nobody here can judge: other types, and a latency to an area that is
    /// named instead of given by its place.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn read(value: &Value) -> Result<Option<Self>, InvalidConstraint> {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().trim();
        Ok(match text("type") {
            "direct" => {
                let cluster = Some(text("cluster").to_owned()).filter(|cluster| !cluster.is_empty());
                // One host, or several separated by `;` as in version 0.4.2.
                let nodes = text("node").split(';').map(str::trim).filter(|node| !node.is_empty());
                let nodes: Vec<_> = nodes.map(str::to_owned).collect();
                let says_something = cluster.is_some() || !nodes.is_empty();
                says_something.then_some(Self::Direct { cluster, nodes })
            }
            "clusters" => {
                let expected = "expected a list of names of clusters";
                let allowed =
                    texts(value.get("allowed")).ok_or(InvalidConstraint { key: "allowed", expected })?;
                (!allowed.is_empty()).then_some(Self::Clusters { allowed })
            }
            "addons" => {
                let expected = "expected a list of names of addons";
                let needs = texts(value.get("needs")).ok_or(InvalidConstraint { key: "needs", expected })?;
                (!needs.is_empty()).then_some(Self::Addons { needs })
            }
            "geo" => {
                let place = "expected \"latitude,longitude\" in degrees, such as \"48.26,11.67\"";
                let location = text("location")
                    .parse()
                    .map_err(|_invalid| InvalidConstraint { key: "location", expected: place })?;
                let kilometres = threshold(value, "expected kilometres, more than 0")?;
                Some(Self::Near(Near { location, kilometres, milliseconds: None }))
            }
            "latency" => {
                let milliseconds = threshold(value, "expected milliseconds, more than 0")?;
                let kilometres = milliseconds * KILOMETRES_PER_MILLISECOND;
                let near = |location| Near { location, kilometres, milliseconds: Some(milliseconds) };
                text("area").parse().ok().map(near).map(Self::Near)
            }
            _ => None,
        })
    }
}

fn threshold(value: &Value, expected: &'static str) -> Result<f64, InvalidConstraint> {
    let threshold = value.get("threshold").and_then(Value::as_f64).filter(|threshold| *threshold > 0.0);
    threshold.ok_or(InvalidConstraint { key: "threshold", expected })
}

/// A list of texts; one that is missing is empty. `None`: it is something else.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(value) => value.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
    }
}

/// All that a service asks of its place. What is empty asks nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demands {
    pub cluster: Option<String>,
    pub nodes: Vec<String>,
    /// Clusters; each list was asked for by itself.
    pub allowed: Vec<Vec<String>>,
    pub addons: Vec<String>,
    pub near: Vec<Near>,
    /// As Go names them; any of them will do.
    pub architectures: Vec<String>,
    pub csi_drivers: Vec<String>,
}

impl Demands {
    /// Leaves out what makes no sense; in a checked SLA all does.
    #[must_use]
    pub fn of(sla: &Microservice) -> Self {
        let mut demands =
            Self { architectures: texts(sla.extra.get("arch")).unwrap_or_default(), ..Self::default() };
        for constraint in sla.constraints.iter().filter_map(|value| Constraint::read(value).ok().flatten()) {
            match constraint {
                Constraint::Direct { cluster, nodes } => {
                    demands.cluster = demands.cluster.or(cluster);
                    demands.nodes.extend(nodes);
                }
                Constraint::Clusters { allowed } => demands.allowed.push(allowed),
                Constraint::Addons { needs } => demands.addons.extend(needs),
                Constraint::Near(near) => demands.near.push(near),
            }
        }
        let volumes = sla.extra.get("volumes").and_then(Value::as_array);
        let drivers = volumes.into_iter().flatten().filter_map(|volume| volume["csi_driver"].as_str());
        demands.csi_drivers.extend(drivers.map(str::to_owned));
        demands
    }
}

/// The name of a CSI driver or an addon, as workers and clusters tell it: as text, or in an object.
#[must_use]
pub fn name_of(told: &Value) -> Option<&str> {
    let keys = ["csi_driver_name", "addon_name", "name"];
    told.as_str().or_else(|| keys.iter().find_map(|key| told.get(key)?.as_str()))
}

/// The names of all that have one.
#[must_use]
pub fn names_of(told: &[Value]) -> Vec<String> {
    told.iter().filter_map(name_of).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Constraint, Demands, Near, name_of};
    use crate::sla::Microservice;

    fn refused(constraint: Value) -> String {
        Constraint::read(&constraint).unwrap_err().to_string()
    }

    #[test]
    fn all_that_is_asked_of_a_place_is_read() {
        let sla: Microservice = serde_json::from_value(json!({
            "microservice_name": "s", "microservice_namespace": "n", "virtualization": "docker", "code": "c",
            "arch": ["amd64", "arm64"],
            "volumes": [{ "volume_id": "v", "csi_driver": "nfs", "mount_path": "/m" }],
            "constraints": [
                { "type": "direct", "cluster": "home", "node": "pi1; pi2" },
                { "type": "direct", "cluster": "", "node": "" },
                { "type": "clusters", "allowed": ["home", "office"] },
                { "type": "addons", "needs": ["FLOps"] },
                { "type": "geo", "location": "48.26,11.67", "threshold": 20, "rigidness": 1 },
                { "type": "latency", "area": "48.26,11.67", "threshold": 2 },
                { "type": "latency", "area": "munich", "threshold": 2 },
                { "type": "of the future" },
            ],
        }))
        .unwrap();
        let location = "48.26,11.67".parse().unwrap();
        let expected = Demands {
            cluster: Some("home".to_owned()),
            nodes: vec!["pi1".to_owned(), "pi2".to_owned()],
            allowed: vec![vec!["home".to_owned(), "office".to_owned()]],
            addons: vec!["FLOps".to_owned()],
            near: vec![
                Near { location, kilometres: 20.0, milliseconds: None },
                Near { location, kilometres: 200.0, milliseconds: Some(2.0) },
            ],
            architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
            csi_drivers: vec!["nfs".to_owned()],
        };
        assert_eq!(Demands::of(&sla), expected);
        assert_eq!(Demands::of(&Microservice::default()), Demands::default());
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_key() {
        let geo = |location: Value, threshold: Value| json!({ "type": "geo", "location": location, "threshold": threshold });
        assert!(refused(geo(json!("munich"), json!(20))).starts_with("location: "));
        assert!(refused(geo(json!("48,11"), json!("20km"))).starts_with("threshold: expected kilometres"));
        assert!(refused(geo(json!("48,11"), json!(0))).starts_with("threshold: "));
        assert!(refused(json!({ "type": "latency", "area": "munich" })).starts_with("threshold: "));
        assert!(refused(json!({ "type": "clusters", "allowed": "home" })).starts_with("allowed: "));
        assert!(refused(json!({ "type": "addons", "needs": [1] })).starts_with("needs: "));
    }

    #[test]
    fn drivers_and_addons_are_known_by_name_in_either_form() {
        assert_eq!(name_of(&json!({ "csi_driver_name": "nfs", "csi_driver_endpoint": "/s" })), Some("nfs"));
        assert_eq!(name_of(&json!("FLOps")), Some("FLOps"));
        assert_eq!(name_of(&json!(3)), None);
    }
}
