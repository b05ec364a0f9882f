//! What `netmanager doctor` says of a machine.

use netmanager::cli::{Configuration, Format};
use netmanager::commands::doctor;
use netmanager::commands::exit::Exit;
use netmanager::plane::Choice;
use serde_json::Value;

use crate::bed::{Bed, CLIENT};
use crate::foreign::{self, Foreign, Place};
use crate::nodes::has_tcx;

fn examine(bed: &Bed) -> (Exit, Vec<Value>) {
    examine_for(bed, None)
}

/// For a daemon that is started with `--datapath`.
fn examine_for(bed: &Bed, datapath: Option<Choice>) -> (Exit, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("netcfg.json");
    let text = r#"{"NodePublicAddress": "0.0.0.0", "NodePublicPort": "50103", "ClusterUrl": "0.0.0.0",
        "ClusterMqttPort": "10003", "DefaultInterface": "lan0"}"#;
    std::fs::write(&file, text).unwrap();
    let asked = Configuration { file, datapath };
    let paths = bed.paths(folder.path());
    let mut out = Vec::new();
    let exit = bed
        .run_in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(doctor::run(&paths, &asked, Format::Json, &mut out))
        })
        .unwrap();
    (exit, serde_json::from_slice(&out).unwrap())
}

fn of<'a>(checks: &'a [Value], id: &str) -> &'a Value {
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}: {checks:#?}"))
}

/// A data plane at one interface, and a LAN at another.
fn bed(address: &str) -> Bed {
    let mut bed = Bed::empty();
    bed.ip("link add lan0 type veth peer name lan1");
    bed.ip("link set lan1 up");
    bed.ip("link set lan0 up");
    bed.ip(&format!("addr add {address} dev lan0"));
    bed.within(|datapath| datapath.attach_endpoint(&CLIENT));
    bed
}

#[test]
fn a_machine_that_has_everything_is_fine() {
    let (exit, checks) = examine(&bed("192.0.2.7/24"));
    for check in &checks {
        assert_ne!(check["verdict"], "broken", "{check}");
    }
    assert_eq!(exit, Exit::Done);
    for id in ["kernel.programs", "machine.uplink", "machine.nft", "ranges.routes", "attached.programs"] {
        assert_eq!(of(&checks, id)["verdict"], "fine", "{checks:#?}");
    }
}

#[test]
fn for_a_data_plane_in_user_space_it_is_not_asked_whether_the_kernel_takes_programs() {
    let (exit, checks) = examine_for(&bed("192.0.2.7/24"), Some(Choice::Userspace));
    assert_eq!(of(&checks, "kernel.packet_sockets")["verdict"], "fine");
    let of_programs = ["kernel.programs", "kernel.hook", "kernel.jit", "kernel.bpffs", "kernel.tun"];
    assert!(checks.iter().all(|check| of_programs.iter().all(|id| check["id"] != *id)), "{checks:#?}");
    assert_eq!(exit, Exit::Done);
}

#[test]
fn a_lan_in_the_overlays_ranges_is_named_with_both_prefixes() {
    let (exit, checks) = examine(&bed("10.18.4.1/16"));
    let clash = of(&checks, "ranges.routes");
    let evidence = clash["evidence"].as_str().unwrap();
    assert!(
        evidence.contains("10.18.0.0/16 by lan0") && evidence.contains("10.18.0.0-10.29.255.255"),
        "{evidence}"
    );
    assert_eq!((exit, &clash["verdict"]), (Exit::Done, &Value::from("degraded")));
    assert!(clash["effect"].is_string() && clash["remedy"].is_string());
}

#[test]
fn a_program_that_is_not_where_it_belongs_is_broken() {
    let mut bed = bed("192.0.2.7/24");
    bed.within(|datapath| datapath.attach_endpoint(&CLIENT));
    bed.detach_all();
    let (exit, checks) = examine(&bed);
    let programs = of(&checks, "attached.programs");
    assert_eq!((exit, &programs["verdict"]), (Exit::Broken, &Value::from("broken")), "{programs}");
    assert!(programs["evidence"].as_str().unwrap().contains("from_container is not at lo"), "{programs}");
}

#[test]
fn a_program_of_somebody_else_is_named() {
    if !has_tcx() {
        return;
    }
    let bed = bed("192.0.2.7/24");
    let _foreign = bed.run_in_namespace(|| Foreign::attach(CLIENT.ifindex, Place::First)).unwrap();
    let (exit, checks) = examine(&bed);
    let seen = of(&checks, "attached.foreign")["evidence"].as_str().unwrap().to_owned();
    assert!(seen.contains(foreign::NAME) && seen.contains("lo by tcx"), "{seen}");
    assert_eq!(exit, Exit::Done);
}
