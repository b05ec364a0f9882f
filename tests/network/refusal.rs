//! What bad input gets: a clear answer, and nothing is harmed by it.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::daemon::binary;
use integration::process;
use serde_json::json;

use crate::bed::{Bed, Container, NODE, SERVICE, config};

const OTHER: &str = "6b033dc62c1f07cbdcd88441";

fn run(command: &mut Command) -> Result<(Option<i32>, String)> {
    let Output { status, stderr, .. } = process::finish(command, "")?;
    Ok((status.code(), String::from_utf8_lossy(&stderr).into_owned()))
}

#[test]
fn every_wrong_field_of_the_configuration_is_named_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("netcfg.json");
    let mut wrong = config();
    wrong["NodePublicAddress"] = json!("here");
    wrong["NodePublicPort"] = json!(50103);
    wrong.as_object_mut().context("an object")?.remove("ClusterUrl");
    std::fs::write(&file, wrong.to_string())?;
    let (code, said) = run(Command::new(binary("netmanager")?).arg("-c").arg(&file))?;
    assert_eq!(code, Some(2), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, field) in lines.iter().zip(["NodePublicAddress", "NodePublicPort", "ClusterUrl"]) {
        assert!(line.contains(field) && line.contains("netcfg.json") && line.contains("expected"), "{line}");
    }
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("netcfg.json");
    let (code, said) = run(Command::new(binary("netmanager")?).arg("-c").arg(&file))?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("netcfg.json"), "{said}");
    std::fs::write(&file, "{")?;
    let (code, said) = run(Command::new(binary("netmanager")?).arg("-c").arg(&file))?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not JSON"), "{said}");
    Ok(())
}

#[test]
fn a_second_daemon_is_told_who_is_first_and_leaves_him_unharmed() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let (status, said) = bed.netmanager.start_second()?;
    assert_eq!(status.code(), Some(1), "{said}");
    let pid = bed.netmanager.pid().to_string();
    assert!(said.contains(&pid) && said.contains("state"), "{said}");

    // With a state directory of its own it meets the socket.
    let mut second = bed.node.command(binary("netmanager")?)?;
    second
        .args(["-c".into(), bed.places.config()])
        .args(["--socket".into(), bed.places.socket()])
        .args(["--state-dir".into(), bed.places.folder().join("other")]);
    let (code, said) = run(&mut second)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&pid) && said.contains("netmanager.sock"), "{said}");

    assert_eq!(bed.status()?["endpoints"].as_array().map(Vec::len), Some(1));
    container.netns.output("ping", &["-c", "1", "-W", "2", "10.18.0.65"])?;
    Ok(())
}

#[test]
fn a_tcp_port_that_is_taken_is_named() -> Result<()> {
    let bed = Bed::start()?;
    let _other = bed.node.run(|| std::net::TcpListener::bind("127.0.0.1:6000"))??;
    let mut second = bed.node.command(binary("netmanager")?)?;
    second
        .args(["-p", "6000"])
        .args(["-c".into(), bed.places.config()])
        .args(["--socket".into(), bed.places.folder().join("other.sock")])
        .args(["--state-dir".into(), bed.places.folder().join("other")]);
    let (code, said) = run(&mut second)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("127.0.0.1:6000") && said.contains("-p"), "{said}");
    assert!(!bed.places.folder().join("other.sock").exists());
    Ok(())
}

#[test]
fn only_root_is_served_whatever_the_mode_of_the_socket() -> Result<()> {
    let bed = Bed::registered()?;
    let socket = bed.places.socket();
    assert_eq!(std::fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660);
    for path in [bed.places.folder(), &socket] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    let script = r#"
        use IO::Socket::UNIX;
        my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "cannot connect";
        print $socket "GET /hypha/report HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        print while <$socket>;
    "#;
    let ask = |user: u32| -> Result<String> {
        let mut perl = Command::new("perl");
        let output = process::finish(perl.args(["-e", script]).arg(&socket).uid(user), "")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(ask(0)?.contains("200 OK"));
    assert_eq!(ask(65534)?, "", "a stranger was answered");
    Ok(())
}

#[test]
fn nothing_is_done_before_the_node_is_registered() -> Result<()> {
    let bed = Bed::start()?;
    let container = Container::new("ctr")?;
    for (status, said) in [bed.attach(&container, 0, "")?, bed.detach(0)?] {
        assert_eq!(status, 400, "{said}");
        assert!(said.contains("/register"), "{said}");
    }
    Ok(())
}

#[test]
fn a_wrong_body_is_answered_with_the_name_of_its_field() -> Result<()> {
    let bed = Bed::registered()?;
    let cases = [
        ("/register", r#"{"cluster_address": ""}"#, "client_id"),
        ("/register", r#"{"client_id": 5}"#, "client_id"),
        ("/register", r#"{"client_id": "short"}"#, "client_id"),
        (
            "/register",
            r#"{"client_id": "6b033dc62c1f07cbdcd88440", "cluster_address": "http://x"}"#,
            "cluster_address",
        ),
        ("/container/deploy", r#"{"serviceName": "a.b.c.d", "instanceNumber": 0}"#, "pid"),
        ("/container/deploy", r#"{"pid": "1", "serviceName": "a.b.c.d", "instanceNumber": 0}"#, "pid"),
        ("/container/deploy", r#"{"pid": 1, "serviceName": "a.b.c", "instanceNumber": 0}"#, "serviceName"),
        (
            "/container/deploy",
            r#"{"pid": 1, "serviceName": "a.b.c.d", "instanceNumber": -1}"#,
            "instanceNumber",
        ),
        ("/container/undeploy", "{", "EOF"),
    ];
    for (path, body, field) in cases {
        let (status, said) = bed.post(path, body)?;
        assert_eq!(status, 400, "{path} {body}: {said}");
        assert!(said.contains(field), "{path} {body}: {said}");
    }
    let (status, _) = bed.post("/register", &" ".repeat(100 << 10))?;
    assert_eq!(status, 413);
    Ok(())
}

#[test]
fn a_process_without_a_namespace_of_its_own_is_refused() -> Result<()> {
    let bed = Bed::registered()?;
    let attach = |pid: u32| {
        let body = json!({"pid": pid, "serviceName": SERVICE, "instanceNumber": 0, "portMappings": ""});
        bed.post("/container/deploy", &body.to_string())
    };
    let (status, said) = attach(bed.netmanager.pid())?;
    assert!(status == 500 && said.contains("own network namespace"), "{status} {said}");
    let (status, said) = attach(4_194_304)?;
    assert!(status == 500 && said.contains("no such process"), "{status} {said}");
    assert_eq!(bed.links()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn another_identity_is_refused_as_long_as_containers_have_addresses_of_the_known_one() -> Result<()> {
    let mut bed = Bed::registered()?;
    assert_eq!(bed.register(NODE)?.0, 200, "the same again is fine");
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let (status, said) = bed.register(OTHER)?;
    assert_eq!(status, 400);
    assert!(said.contains(NODE) && said.contains(OTHER), "{said}");
    assert_eq!(bed.detach(0)?.0, 200);
    // As after its cluster has forgotten it: the block is another one, too.
    bed.cluster.knows().block = Some(([10, 18, 7, 64].into(), "fc00::700"));
    let (status, said) = bed.register(OTHER)?;
    assert_eq!(status, 200, "{said}");
    assert_eq!(bed.attached(&container, 1)?, Ipv4Addr::new(10, 18, 7, 66));
    bed.netmanager.expect_running()
}

#[test]
fn a_cluster_that_gives_no_block_fails_the_registration_and_not_the_daemon() -> Result<()> {
    let mut bed = Bed::start()?;
    bed.cluster.knows().block = None;
    let start = Instant::now();
    let (status, said) = bed.register(NODE)?;
    assert_eq!(status, 504, "{said}");
    assert!(said.contains("192.0.2.20:10003") && said.contains("did not answer"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    bed.netmanager.expect_running()?;
    bed.cluster.knows().block = Some(([10, 18, 0, 64].into(), "fc00::100"));
    // It asks again by itself; the next registration waits for that.
    assert_eq!(bed.register(NODE)?.0, 200);
    Ok(())
}

#[test]
fn malformed_messages_are_ignored_and_logged_once() -> Result<()> {
    let mut bed = Bed::registered()?;
    let topic = format!("nodes/{NODE}/net/tablequery/result");
    for payload in ["", "{", "[]", "null", r#"{"instance_list": 5}"#] {
        bed.cluster.say(&topic, payload)?;
    }
    bed.cluster.say(&format!("nodes/{NODE}/net/subnetwork/result"), r#"{"address":"300.0.0.1"}"#)?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    assert_eq!(bed.status()?["endpoints"][0]["instance_ip"], "10.30.0.0");
    bed.netmanager.expect_running()?;
    let log = bed.log()?;
    assert_eq!(log.matches("malformed payload").count(), 2, "{log}");
    Ok(())
}
