//! What `apply` has to do: the difference between a file and what the root has. Pure.

use std::collections::BTreeSet;

use protocol::balancing::BALANCING;
use protocol::id::Id;
use protocol::outage::{ON_DISCONNECT, RECONCILE};
use protocol::service::{CONTAINER, Service};
use protocol::sla::{Application, Document, Microservice};
use serde_json::Value;

use crate::api::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::Fleet;

/// What is missing at the root, by position in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Applications to create, with all their services.
    pub(crate) new_apps: BTreeSet<usize>,
    /// Services to add to applications that are there: application, its id, services.
    pub(crate) new_services: Vec<(usize, Id, BTreeSet<usize>)>,
    /// Services of the root, in an application of the file, which the file does not have.
    pub(crate) left_alone: Vec<String>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.new_apps.is_empty() && self.new_services.is_empty()
    }
}

/// A service runs with another definition than the file has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} changed: a service's definition cannot be changed while it is there, and nothing was done",
    list(changed)
)]
pub(crate) struct Changed {
    /// Service and its changed fields, each with what is there and what the file says.
    pub(crate) changed: Vec<(String, Vec<String>)>,
}

fn list(changed: &[(String, Vec<String>)]) -> String {
    changed.iter().map(|(service, _)| service.as_str()).collect::<Vec<_>>().join(", ")
}

impl From<Changed> for Failure {
    fn from(error: Changed) -> Self {
        let targets: Vec<_> = error.changed.iter().map(|(service, _)| format!("service/{service}")).collect();
        let failure = Self::new(Exit::Conflict, error.to_string());
        let fields = error
            .changed
            .iter()
            .flat_map(|(service, fields)| fields.iter().map(move |field| format!("{service}  {field}")));
        fields
            .fold(failure, Self::detail)
            .hint(format!("hypha delete {}, then apply again", targets.join(" ")))
    }
}

/// The application of the file, if the root has it.
pub(crate) fn find_app<'a>(wanted: &Application, fleet: &'a Fleet) -> Option<&'a App> {
    let same =
        |app: &&App| app.name == wanted.application_name && app.namespace == wanted.application_namespace;
    fleet.apps.iter().find(same)
}

/// The service of the file, if the root has it in `app`.
pub(crate) fn find_service<'a>(app: &App, wanted: &Microservice, fleet: &'a Fleet) -> Option<&'a Service> {
    fleet.services_of(app.id).find(|service| {
        service.service_name == wanted.microservice_name
            && service.service_ns == wanted.microservice_namespace
    })
}

pub(crate) fn plan(document: &Document, fleet: &Fleet) -> Result<Plan, Changed> {
    let mut plan = Plan::default();
    let mut changed = Vec::new();
    for (at, wanted) in document.applications.iter().enumerate() {
        let Some(app) = find_app(wanted, fleet) else {
            plan.new_apps.insert(at);
            continue;
        };
        let mut missing = BTreeSet::new();
        let mut known = BTreeSet::new();
        for (service_at, microservice) in wanted.microservices.iter().enumerate() {
            let Some(service) = find_service(app, microservice, fleet) else {
                missing.insert(service_at);
                continue;
            };
            known.insert(service.id);
            let fields = differences(microservice, &service.sla);
            if !fields.is_empty() {
                changed.push((format!("{}/{}", app.name, service.service_name), fields));
            }
        }
        if !missing.is_empty() {
            plan.new_services.push((at, app.id, missing));
        }
        let others = fleet.services_of(app.id).filter(|service| !known.contains(&service.id));
        plan.left_alone.extend(others.map(|service| format!("{}/{}", app.name, service.service_name)));
    }
    if changed.is_empty() { Ok(plan) } else { Err(Changed { changed }) }
}

/// The fields in which two definitions differ: `code "nginx:1" -> "nginx:2"`. A field that is left out is its default;
/// an address that is left out is any address; a key that is neither Oakestra's nor ours is compared if both have it.
fn differences(wanted: &Microservice, there: &Microservice) -> Vec<String> {
    let (wanted_fields, there_fields) = (normal(wanted, there), normal(there, there));
    let (Value::Object(wanted_fields), Value::Object(there_fields)) = (wanted_fields, there_fields) else {
        return Vec::new();
    };
    wanted_fields
        .iter()
        .filter_map(|(key, value)| there_fields.get(key).map(|other| (key, value, other)))
        .filter(|(_, value, other)| value != other)
        .map(|(key, value, other)| format!("{key} {other} -> {value}"))
        .collect()
}

/// A definition in the form in which the root stores it.
fn normal(service: &Microservice, there: &Microservice) -> Value {
    let mut normal = service.clone();
    normal.microservice_id = String::new();
    normal.extra.remove("instances");
    for (ours, default) in [(ON_DISCONNECT, ""), (RECONCILE, "newest"), (BALANCING, "round_robin")] {
        let value = normal.extra.entry(ours).or_insert(Value::Null);
        if value == default {
            *value = Value::Null;
        }
    }
    if normal.virtualization == "container" {
        normal.virtualization = CONTAINER.to_owned();
    }
    let chosen = &mut normal.addresses;
    chosen.rr_ip = chosen.rr_ip.take().or_else(|| there.addresses.rr_ip.clone());
    chosen.rr_ip_v6 = chosen.rr_ip_v6.take().or_else(|| there.addresses.rr_ip_v6.clone());
    chosen.closest_ip = chosen.closest_ip.take().or_else(|| there.addresses.closest_ip.clone());
    chosen.closest_ip_v6 = chosen.closest_ip_v6.take().or_else(|| there.addresses.closest_ip_v6.clone());
    if chosen.instances.is_empty() {
        chosen.instances.clone_from(&there.addresses.instances);
    }
    serde_json::to_value(normal).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use protocol::sla::Document;
    use serde_json::{Value, json};

    use super::{Changed, Failure, Plan, plan};
    use crate::exit::Exit;
    use crate::fleet::Fleet;
    use crate::sample;
    use crate::terminal::Paint;

    /// `hello` with the services `web` and `client`, as the root has it.
    fn fleet() -> Fleet {
        let apps = vec![sample::app(1, "hello", "demo")];
        let services = vec![sample::service(&apps[0], 11, "web"), sample::service(&apps[0], 12, "client")];
        Fleet { apps, services, ..Fleet::default() }
    }

    fn service(name: &str) -> Value {
        json!({ "microservice_name": name, "microservice_namespace": "demo", "virtualization": "container",
                "code": "docker.io/library/busybox:1", "memory": 16, "vcpus": 1, "instances": 3 })
    }

    fn file(app: &str, services: &[Value]) -> Document {
        serde_json::from_value(json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [
            { "application_name": app, "application_namespace": "demo", "microservices": services }] }))
        .unwrap()
    }

    #[test]
    fn what_is_there_already_is_not_made_again() {
        let same = file("hello", &[service("web"), service("client")]);
        assert_eq!(plan(&same, &fleet()), Ok(Plan::default()));
    }

    #[test]
    fn a_new_application_is_created_whole_and_a_new_service_added() {
        let new = plan(&file("shop", &[service("web")]), &fleet()).unwrap();
        assert!(new.new_apps.contains(&0) && new.new_services.is_empty());
        let more = plan(&file("hello", &[service("web"), service("cache")]), &fleet()).unwrap();
        assert_eq!(more.new_services, [(0, sample::id(1), [1].into())]);
        assert_eq!(more.left_alone, ["hello/client"]);
    }

    #[test]
    fn a_changed_definition_is_refused_with_its_fields() {
        let mut web = service("web");
        web["code"] = json!("docker.io/library/busybox:2");
        web["cmd"] = json!(["httpd"]);
        let error = plan(&file("hello", &[web, service("new")]), &fleet()).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.exit, Exit::Conflict);
        let text = failure.text(Paint::never());
        assert!(
            text.contains(
                r#"hello/web  code "docker.io/library/busybox:1" -> "docker.io/library/busybox:2""#
            ),
            "{text}"
        );
        assert!(text.contains(r#"hello/web  cmd [] -> ["httpd"]"#), "{text}");
        assert!(text.contains("hypha delete service/hello/web, then apply again"), "{text}");
    }

    #[test]
    fn an_address_is_only_compared_when_the_file_chooses_one() {
        let mut fleet = fleet();
        fleet.services[0].sla.addresses.rr_ip = Some("10.30.30.30".into());
        let mut web = service("web");
        assert_eq!(plan(&file("hello", &[web.clone()]), &fleet).map(|plan| plan.is_empty()), Ok(true));
        web["addresses"] = json!({ "rr_ip": "10.30.30.31" });
        let Err(Changed { changed }) = plan(&file("hello", &[web]), &fleet) else {
            panic!("taken for the same")
        };
        assert_eq!(changed[0].0, "hello/web");
    }

    #[test]
    fn a_key_of_ours_that_only_one_of_them_has_is_a_difference_and_its_default_is_none() {
        for (value, changes) in [("least_connections", 1), ("round_robin", 0)] {
            let mut web = service("web");
            web["balancing"] = json!(value);
            let changed = plan(&file("hello", &[web]), &fleet())
                .map_or_else(|Changed { changed }| changed.len(), |_| 0);
            assert_eq!(changed, changes, "{value}");
        }
    }
}
