//! What the commands show where the daemon forwards packets itself: the same as of the kernel.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use integration::{eventually, process};
use serde_json::{Value, json};

use super::{PATIENCE, PORT, Pair, Server, WEB_ADDRESS6, ask_by_datagram, ping};
use integration::cluster::WEB_ADDRESS;

/// A command about the first node, as JSON.
fn shown(pair: &Pair, name: &str, arguments: &[&str]) -> Result<Value> {
    let output = process::output(pair.bed.command(name)?.args(arguments).args(["-o", "json"]))?;
    serde_json::from_str(&output).with_context(|| format!("read {output}"))
}

#[test]
fn services_flows_and_drops_are_shown_by_the_daemon_that_has_them() -> Result<()> {
    let mut pair = Pair::start(["userspace", "userspace"])?;
    let _server = Server::start(&pair.server.netns)?;
    pair.expect_connected()?;
    // Names are on the disk some seconds after they are known.
    let services = eventually(PATIENCE, "the service's name", || {
        let services = shown(&pair, "services", &[&WEB_ADDRESS.to_string()])?;
        ensure!(services[0]["service"] == integration::cluster::WEB, "{services}");
        Ok(services)
    })?;
    let backend = &services[0]["backends"][0];
    assert_eq!((&backend["instance"], &backend["here"]), (&json!(1), &json!(false)), "{services}");
    assert!(backend["flows"].as_u64().is_some_and(|flows| flows > 0), "{services}");

    let flows = shown(&pair, "flows", &["--to", &WEB_ADDRESS.to_string()])?;
    let transports: Vec<_> = flows.as_array().into_iter().flatten().map(|flow| &flow["transport"]).collect();
    for transport in ["tcp", "udp", "icmp"] {
        assert!(transports.contains(&&json!(transport)), "{flows}");
    }
    assert_eq!(shown(&pair, "flows", &["--to", "10.30.9.9"])?, json!([]));

    // What has waited for the cluster is listed too, as given to netmanager.
    let given = |reason: &str| -> Result<u64> {
        let rows = shown(&pair, "drops", &[])?;
        let row = rows.as_array().into_iter().flatten().find(|row| row["reason"] == reason);
        Ok(row.and_then(|row| row["given_to_netmanager"].as_u64()).unwrap_or(0))
    };
    assert_eq!(given("no-endpoint")?, 0);
    // Whom nobody knows: netmanager says so to the sender.
    assert!(ask_by_datagram(&pair.client.netns, "10.18.200.1".parse()?).is_err());
    assert!(given("no-endpoint")? > 0);

    for (arguments, code, said) in [
        (&["services", "10.30.9.9"][..], 3, "no service '10.30.9.9'"),
        (&["why", "10.18.0.77", "10.30.109.2"], 3, "no container '10.18.0.77'"),
    ] {
        let output = pair.bed.command(arguments[0])?.args(&arguments[1..]).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }

    pair.bed.netmanager.terminate()?;
    let output = pair.bed.command("flows")?.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("nor does a daemon"), "{text}");
    Ok(())
}

/// What `why` says of a packet of the client: its steps, where it ends and why, the instance, and whether it flows.
fn story(pair: &Pair, to: &str, transport: Option<&str>) -> Result<(i32, Value)> {
    let mut command = pair.bed.command("why")?;
    let output = command.args(["10.18.0.66", to, "-o", "json"]).args(transport).output()?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{to}: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(said["same_build"] == true, "{said}");
    let answer = &said["answers"][0];
    let steps = answer["steps"].as_array().context("steps")?.iter();
    let steps: Vec<_> = steps.map(|step| json!([step["name"], step["mark"]])).collect();
    let told = ["end", "instance", "reason", "flows"].map(|key| &answer[key]);
    Ok((output.status.code().unwrap_or(-1), json!([steps, told])))
}

#[test]
fn why_tells_the_same_of_a_packet_whether_the_kernel_or_the_daemon_forwards_it() -> Result<()> {
    let questions = [
        ("10.30.109.2:80", None),
        ("10.30.109.2:80", Some("--udp")),
        ("10.30.109.2", Some("--icmp")),
        ("[fdff:2000::2]:80", None),
        ("10.30.0.1:80", None),
        ("10.18.0.130:80", None),
        ("10.18.200.1:80", None),
        ("10.30.77.77:80", Some("--udp")),
        ("192.0.2.200:80", None),
    ];
    let mut told = Vec::new();
    for datapath in ["ebpf", "userspace"] {
        let pair = Pair::start([datapath, "userspace"])?;
        let _server = Server::start(&pair.server.netns)?;
        pair.expect_connected()?;
        // Names are known from the tables that are saved, which is some seconds later.
        eventually(PATIENCE, "the services' names", || {
            let services = shown(&pair, "services", &[])?;
            let rows = services.as_array().context("rows")?;
            ensure!(rows.iter().all(|row| row["service"].is_string()), "{services}");
            Ok(())
        })?;
        // The warm connections' ports are older than the first one that is asked about, or were taken.
        let before = [shown(&pair, "services", &[])?, shown(&pair, "drops", &[])?];
        let stories = questions.iter().map(|(to, transport)| story(&pair, to, *transport));
        told.push(stories.collect::<Result<Vec<_>>>()?);
        let after = [shown(&pair, "services", &[])?, shown(&pair, "drops", &[])?];
        assert_eq!(before, after, "asking has changed something");
    }
    for (question, (kernel, daemon)) in questions.iter().zip(told[0].iter().zip(&told[1])) {
        assert_eq!(kernel, daemon, "{question:?}");
    }
    let ends: Vec<_> = told[1].iter().map(|(code, story)| (*code, story[1][0].as_str().unwrap())).collect();
    let sent = (0, "sent");
    assert_eq!(ends[..6], [sent; 6]);
    assert_eq!(ends[6..], [(1, "netmanager"), (1, "netmanager"), (0, "host")], "{told:?}");
    Ok(())
}

/// `netmanager trace` on the first node, until it has told of `count` packets.
fn traced(pair: &Pair, arguments: &[&str], count: u64, mut send: impl FnMut()) -> Result<Vec<Value>> {
    let mut command = pair.bed.command("trace")?;
    command.args(arguments).args(["-o", "json", "--count", &count.to_string()]);
    let mut tracer = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let told = eventually(PATIENCE, "the packets to be told of", || {
        send();
        ensure!(tracer.try_wait()?.is_some(), "it has not told of {count}");
        Ok(())
    });
    if told.is_err() {
        tracer.kill()?;
        let output = tracer.wait_with_output()?;
        return told.with_context(|| format!("{arguments:?}: {output:?}")).map(|()| Vec::new());
    }
    let output = tracer.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| format!("read {line}"))).collect()
}

/// What a line says, but for when and of which connection. From which node a packet came that is delivered, the programs do not
/// know any more; and what netmanager is given may have waited once already.
fn told(line: &Value) -> String {
    let mut line = line.clone();
    match line["verdict"].as_str() {
        Some("delivered") => line["node"] = Value::Null,
        Some("netmanager") => line["program"] = Value::Null,
        _ => {}
    }
    let told =
        ["program", "verdict", "reason", "protocol", "length", "node"].map(|key| line[key].to_string());
    let ends = ["source", "destination", "onward_source", "onward_destination"].map(|key| {
        let end: Option<SocketAddr> = line[key].as_str().and_then(|end| end.parse().ok());
        // The server's alone is always the same.
        end.map_or("none".to_owned(), |end| format!("{} {}", end.ip(), end.port() == PORT))
    });
    told.into_iter().chain(ends).collect::<Vec<_>>().join(" ")
}

#[test]
fn trace_tells_the_same_of_packets_whether_the_kernel_or_the_daemon_forwards_them() -> Result<()> {
    let mut seen: Vec<Vec<BTreeSet<String>>> = Vec::new();
    for datapath in ["ebpf", "userspace"] {
        let pair = Pair::start([datapath, "userspace"])?;
        let _server = Server::start(&pair.server.netns)?;
        pair.expect_connected()?;
        let client = &pair.client.netns;
        let of = |arguments: &[&str], count, send: &dyn Fn()| -> Result<BTreeSet<String>> {
            // What the link says to itself does not come to the daemon.
            let lines = traced(&pair, arguments, count, send)?;
            Ok(lines.iter().filter(|line| line["verdict"] != "host").map(told).collect())
        };
        let mut sets = Vec::new();
        for address in [IpAddr::V4(WEB_ADDRESS), WEB_ADDRESS6.into()] {
            sets.push(of(&[], 6, &|| drop(ping(client, address)))?);
            sets.push(of(&["--from", "10.18.0.66"], 2, &|| drop(ask_by_datagram(client, address)))?);
        }
        let nobody = "10.18.200.1".parse()?;
        sets.push(of(&["--to", "10.18.200.1"], 1, &|| drop(ask_by_datagram(client, nobody)))?);
        seen.push(sets);

        // One at a time; one that was killed does not keep others out.
        let told = pair.bed.places.folder().join("told");
        let mut first = pair.bed.command("trace")?.stdout(File::create(&told)?).spawn()?;
        let refused = eventually(PATIENCE, "the first one to tell", || {
            ping(client, WEB_ADDRESS.into())?;
            ensure!(told.metadata()?.len() > 0, "it does not");
            Ok(())
        })
        .and_then(|()| {
            let second = pair.bed.command("trace")?.args(["--count", "1"]).output()?;
            ensure!(!second.status.success(), "it has told, too");
            Ok(String::from_utf8_lossy(&second.stderr).into_owned())
        });
        first.kill()?;
        first.wait()?;
        let refused = refused?;
        assert!(refused.contains("somebody else"), "{refused}");
        eventually(PATIENCE, "another one to be let", || {
            traced(&pair, &[], 2, || drop(ping(client, WEB_ADDRESS.into()))).map(drop)
        })?;
    }
    assert_eq!(seen[0], seen[1]);
    let all: String = seen[1].iter().flatten().map(|told| format!("{told}\n")).collect();
    for verdict in ["sent", "delivered", "netmanager"] {
        assert!(all.contains(verdict), "{all}");
    }
    Ok(())
}
