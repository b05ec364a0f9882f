use protocol::service::Instance;
use protocol::status::Status;
use serde_json::json;

use super::{Clusters, Fleet, Get, Kind, Listing, Wanted, apps, clusters, instances, services};
use crate::exit::Exit;
use crate::output::{Format, Frame, render};
use crate::sample;

const NOW: f64 = 1_795_374_561.67 + 3.0;
const TERMINAL: Frame = Frame { width: Some(80), colours: false, headers: true };

fn fleet() -> Fleet {
    let apps = vec![sample::app(1, "hello", "demo"), sample::app(2, "shop", "prod")];
    let mut web = sample::service(&apps[0], 11, "web");
    let running = |number| Instance {
        host_ip: Some(format!("192.0.2.{}", 11 + number)),
        cluster_id: Some(sample::id(4)),
        cpu_percent: Some("0.250000".into()),
        ..Instance::new(number, Status::Running)
    };
    let failed = Instance {
        status_detail: Some("image docker.io/hypha/nope:1 was not found by the registry docker.io".into()),
        ..Instance::new(2, Status::Failed)
    };
    web.instance_list = vec![running(0), running(1), failed];
    let mut cam = sample::service(&apps[1], 12, "cam");
    cam.status = Some(Status::NoActiveClusterWithCapacity);
    let services = vec![web, cam];
    let documents =
        |count: usize| (0..count).map(|at| json!({ "instance_list": [{ "instance_number": at }] })).collect();
    Fleet { app_documents: documents(2), service_documents: documents(2), apps, services }
}

fn home() -> Clusters {
    let mut lost = sample::cluster(5, "berlin");
    lost.active = false;
    let clusters = vec![lost, sample::cluster(4, "home")];
    Clusters { documents: vec![json!({}), json!({})], clusters }
}

fn wanted(fleet: &Fleet, kind: Kind, names: &[&str]) -> Wanted {
    let names = names.iter().map(ToString::to_string).collect();
    Wanted::find(fleet, &Get { kind, names, app: None, watch: false }).unwrap()
}

fn check(listing: &Listing, expected: &str) {
    let text = render(listing, Format::Table, TERMINAL);
    assert_eq!(text, expected, "\n{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "\n{text}");
}

#[test]
fn apps_are_listed_with_how_much_of_them_runs() {
    let fleet = fleet();
    let expected = "\
APP    NAMESPACE  SERVICES  READY
hello  demo              1    2/3
shop   prod              1    0/0";
    check(&apps(&fleet, &wanted(&fleet, Kind::App, &[])), expected);
}

#[test]
fn services_are_listed_with_their_address_and_what_is_wrong() {
    let fleet = fleet();
    let expected = "\
SERVICE    ADDRESS    READY  STATE    DETAIL
hello/web  10.30.0.4    2/3  failed   /2: image docker.io/hypha/nope:1 was not…
shop/cam   10.30.0.4    0/0  waiting  no cluster in reach has room for it";
    check(&services(&fleet, &wanted(&fleet, Kind::Service, &[])), expected);
}

#[test]
fn instances_are_listed_with_where_they_are() {
    let fleet = fleet();
    let expected = "\
INSTANCE     STATE    NODE        CLUSTER    CPU  DETAIL
hello/web/0  running  192.0.2.11  home     0.2 %  -
hello/web/1  running  192.0.2.12  home     0.2 %  -
hello/web/2  failed   -           -            -  image docker.io/hypha/nope:1…";
    check(&instances(&fleet, &home(), &wanted(&fleet, Kind::Instance, &["web"]), NOW), expected);
}

#[test]
fn a_lost_cluster_keeps_its_row_with_its_age() {
    let expected = "\
CLUSTER  STATE   WORKERS  CPUS   CPU   MEMORY  LOCATION     SEEN
berlin   lost          2     4  38 %  45.3 GB  48.26,11.67   3 s
home     active        2     4  38 %  45.3 GB  48.26,11.67   3 s";
    let listing = clusters(&home(), &[]).unwrap();
    let text = render(&listing, Format::Table, TERMINAL);
    // The age is counted from the clock of this machine.
    let columns = text.lines().map(|line| line.get(..59).unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let expected: Vec<_> = expected.lines().map(|line| line.get(..59).unwrap_or(line)).collect();
    assert_eq!(columns, expected.join("\n"), "\n{text}");
}

#[test]
fn a_name_narrows_the_list_to_what_it_contains() {
    let fleet = fleet();
    let names = |kind, name: &str| {
        let wanted = wanted(&fleet, kind, &[name]);
        let listing = if kind == Kind::Service {
            services(&fleet, &wanted)
        } else {
            instances(&fleet, &home(), &wanted, NOW)
        };
        render(&listing, Format::Name, TERMINAL)
    };
    assert_eq!(names(Kind::Service, "shop"), "service/shop/cam");
    assert_eq!(names(Kind::Service, "web"), "service/hello/web");
    assert_eq!(names(Kind::Instance, "web/1"), "instance/hello/web/1");
    assert_eq!(names(Kind::Instance, "shop"), "");
}

#[test]
fn instances_in_json_say_whose_they_are() {
    let fleet = fleet();
    let listing = instances(&fleet, &home(), &wanted(&fleet, Kind::Instance, &["web/0"]), NOW);
    let document = &listing.rows[0].document;
    assert_eq!((&document["name"], &document["instance_number"]), (&json!("hello/web/0"), &json!(0)));
}

#[test]
fn an_unknown_name_is_not_an_empty_list() {
    let fleet = fleet();
    let get = Get { kind: Kind::Service, names: vec!["wbe".into()], app: None, watch: false };
    let failure = Wanted::find(&fleet, &get).unwrap_err();
    assert_eq!((failure.exit, failure.nearest), (Exit::NotFound, vec!["hello/web".to_owned()]));
    assert_eq!(clusters(&home(), &["hom".into()]).unwrap_err().exit, Exit::NotFound);
}
