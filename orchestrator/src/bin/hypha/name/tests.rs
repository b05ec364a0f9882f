use protocol::service::{Instance, Service};
use protocol::status::Status;

use super::{NameError, Names, Target};
use crate::api::App;
use crate::args::Kind;
use crate::sample;

const ANY: &[Kind] = &[Kind::App, Kind::Service, Kind::Instance];

fn fleet() -> (Vec<App>, Vec<Service>) {
    let apps =
        vec![sample::app(1, "shop", "prod"), sample::app(2, "shop", "test"), sample::app(3, "hello", "demo")];
    let mut services = vec![
        sample::service(&apps[0], 11, "web"),
        sample::service(&apps[1], 12, "web"),
        sample::service(&apps[2], 13, "client"),
    ];
    for service in &mut services {
        service.instance_list = vec![Instance::new(2, Status::Running)];
    }
    (apps, services)
}

#[test]
fn short_forms_stand_for_the_only_thing_that_they_fit() {
    let (apps, services) = fleet();
    let names = Names::new(&apps, &services);
    for (text, label) in [
        ("hello", "hello"),
        ("hello.demo", "hello"),
        ("client", "hello/client"),
        ("hello/client", "hello/client"),
        ("hello.demo.client.demo", "hello/client"),
        ("client/2", "hello/client/2"),
        ("hello.demo.client.demo.instance.2", "hello/client/2"),
        ("shop.test/web", "shop.test/web"),
        ("shop.prod/web.prod/2", "shop.prod/web/2"),
    ] {
        let target = names.find(text, ANY).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(names.label(target), label);
        assert_eq!(names.find(label, &[target.kind()]), Ok(target), "the label {label} finds what it names");
    }
}

#[test]
fn an_ambiguous_name_lists_the_choices() {
    let (apps, services) = fleet();
    let error = Names::new(&apps, &services).find("web", &[Kind::Service]).unwrap_err();
    let NameError::Ambiguous { choices, .. } = error else { panic!("{error}") };
    assert_eq!(choices, ["service/shop.prod/web", "service/shop.test/web"]);
}

#[test]
fn the_kind_that_is_asked_for_decides() {
    let (mut apps, mut services) = fleet();
    apps.push(sample::app(4, "client", "x"));
    services.push(sample::service(&apps[3], 14, "job"));
    let names = Names::new(&apps, &services);
    assert_eq!(names.find("client", &[Kind::App]), Ok(Target::App(apps[3].id)));
    assert_eq!(names.find("client", &[Kind::Service]), Ok(Target::Service(services[2].id)));
    assert!(matches!(names.find("client", ANY), Err(NameError::Ambiguous { .. })));
}

#[test]
fn a_slip_of_the_finger_gets_the_nearest_names() {
    let (apps, services) = fleet();
    let error = Names::new(&apps, &services).find("cleint", &[Kind::Service]).unwrap_err();
    let NameError::Unknown { nearest, .. } = &error else { panic!("{error}") };
    assert_eq!(nearest, &["hello/client"]);
    assert_eq!(error.to_string(), "no service 'cleint'");
}

#[test]
fn nothing_comes_near_a_name_that_is_far_off() {
    let (apps, services) = fleet();
    let error = Names::new(&apps, &services).find("quarterly", ANY).unwrap_err();
    assert!(matches!(&error, NameError::Unknown { nearest, .. } if nearest.is_empty()), "{error:?}");
}
