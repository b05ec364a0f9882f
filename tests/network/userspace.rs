//! The daemon without BPF: two nodes whose netmanagers forward packets themselves.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{Netns, eventually, process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, Container, config, recipe, request, wait_until_ready, write_config};
use crate::cluster::WEB_ADDRESS;
use crate::denied;
use crate::neighbour::Neighbour;

const PORT: u16 = 80;
const WEB_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 2);
/// Longer than a reconnection takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of one try.
const SHORT: Duration = Duration::from_secs(2);

fn with_datapath(datapath: &str) -> Value {
    let mut config = config();
    config["Datapath"] = json!(datapath);
    config
}

/// Answers connections and datagrams by who has asked, until it is dropped.
#[derive(Debug)]
struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(netns: &Netns) -> Result<Self> {
        let any = (Ipv6Addr::UNSPECIFIED, PORT);
        let listener = netns.run(|| TcpListener::bind(any))?.context("listen")?;
        let socket = netns.run(|| UdpSocket::bind(any))?.context("bind")?;
        listener.set_nonblocking(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vec![
            until(&stop, move || match listener.accept() {
                Ok((mut stream, peer)) => {
                    stream.write_all(peer.ip().to_canonical().to_string().as_bytes()).ok();
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }),
            until(&stop, move || {
                let mut buffer = [0; 100];
                if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    socket.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer).ok();
                }
            }),
        ];
        Ok(Self { stop, threads })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn until(stop: &Arc<AtomicBool>, mut step: impl FnMut() + Send + 'static) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            step();
        }
    })
}

/// Who the server says has asked, by a connection.
fn ask(client: &Netns, address: IpAddr) -> Result<String> {
    client.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), SHORT)?;
        stream.set_read_timeout(Some(SHORT))?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    })?
}

/// As [`ask`], by a datagram.
fn ask_by_datagram(client: &Netns, address: IpAddr) -> Result<String> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    client.run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(SHORT))?;
        socket.connect((address, PORT))?;
        socket.send(b"who?")?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })?
}

fn ping(client: &Netns, address: IpAddr) -> Result<()> {
    client.output("ping", &["-c", "1", "-W", "2", &address.to_string()]).map(drop)
}

/// Two nodes with these data planes, a client on the first and the only instance of the service on the second.
struct Pair {
    // In the order of their end.
    server: Container,
    client: Container,
    neighbour: Neighbour,
    bed: Bed,
}

impl Pair {
    fn start(datapaths: [&str; 2]) -> Result<Self> {
        let bed = Bed::start_with(&with_datapath(datapaths[0]), 1500)?;
        let (status, said) = bed.register(crate::bed::NODE)?;
        ensure!(status == 200, "register: {status} {said}");
        let neighbour = Neighbour::join_with(&bed, &with_datapath(datapaths[1]))?;
        let (client, server) = (Container::new("client")?, Container::new("server")?);
        bed.attached(&client, 0)?;
        neighbour.serve(&bed, &server)?;
        Ok(Self { server, client, neighbour, bed })
    }

    /// Every address of the server, each with how its client is seen there.
    fn expect_connected(&self) -> Result<()> {
        let client = &self.client.netns;
        let by_service = [(IpAddr::V4(WEB_ADDRESS), "10.30.0.0"), (WEB_ADDRESS6.into(), "fdff::")];
        let by_own = ["10.30.0.1", "fdff::1"].map(|own| own.parse::<IpAddr>()).into_iter();
        let by_own = by_own.collect::<Result<Vec<_>, _>>()?.into_iter().zip(["10.30.0.0", "fdff::"]);
        let ns_ips = ["10.18.0.130", "fc00::202"].map(|ns_ip| ns_ip.parse::<IpAddr>()).into_iter();
        let by_ns_ip = ns_ips.collect::<Result<Vec<_>, _>>()?.into_iter().zip(["10.18.0.66", "fc00::102"]);
        for (address, seen_as) in by_service.into_iter().chain(by_own).chain(by_ns_ip) {
            let said = eventually(PATIENCE, &format!("a connection to {address}"), || ask(client, address))?;
            ensure!(said == seen_as, "{address} by TCP: seen as {said}");
            let said =
                ask_by_datagram(client, address).with_context(|| format!("a datagram to {address}"))?;
            ensure!(said == seen_as, "{address} by UDP: seen as {said}");
            ping(client, address)?;
        }
        Ok(())
    }
}

#[test]
fn containers_of_two_nodes_talk_by_every_address_of_both_families_without_bpf() -> Result<()> {
    let pair = Pair::start(["userspace", "userspace"])?;
    let _server = Server::start(&pair.server.netns)?;
    pair.expect_connected()?;
    for status in [pair.bed.status()?, pair.neighbour.status()?] {
        assert_eq!((&status["mode"], &status["drops"]), (&json!("userspace"), &json!([])), "{status}");
        assert_eq!(status["unwrapping"][0]["place"], "socket", "{status}");
        assert_eq!(status["daemon"]["fallback"], Value::Null, "it was asked for");
    }
    assert!(!pair.bed.places.pins.exists(), "nothing is pinned");
    Ok(())
}

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
        ensure!(services[0]["service"] == crate::cluster::WEB, "{services}");
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

#[test]
fn a_node_in_user_space_and_one_in_the_kernel_understand_each_other() -> Result<()> {
    for datapaths in [["userspace", "ebpf"], ["ebpf", "userspace"]] {
        let pair = Pair::start(datapaths)?;
        let _server = Server::start(&pair.server.netns)?;
        pair.expect_connected().with_context(|| format!("{datapaths:?}"))?;
        let modes = [pair.bed.status()?["mode"].clone(), pair.neighbour.status()?["mode"].clone()];
        assert_eq!(modes, datapaths.map(Value::from));
    }
    Ok(())
}

#[test]
fn containers_are_connected_again_when_a_stopped_or_killed_daemon_is_back() -> Result<()> {
    let mut pair = Pair::start(["userspace", "userspace"])?;
    let _server = Server::start(&pair.server.netns)?;
    pair.expect_connected()?;
    for killed in [false, true] {
        if killed {
            process::signal(pair.bed.netmanager.pid(), Signal::SIGKILL)?;
            pair.bed.netmanager.kill()?;
        } else {
            assert!(pair.bed.netmanager.terminate()?.success());
            assert!(pair.bed.log()?.contains("containers are cut off"), "{}", pair.bed.log()?);
        }
        let cut_off = ask(&pair.client.netns, WEB_ADDRESS.into());
        assert!(cut_off.is_err(), "nobody forwards: {cut_off:?}");
        let status = pair.bed.status()?;
        assert_eq!((&status["mode"], &status["daemon"]), (&json!("none"), &Value::Null), "{status}");
        pair.bed.netmanager.start_again()?;
        pair.bed.wait_until_ready()?;
        pair.expect_connected().with_context(|| format!("killed: {killed}"))?;
    }
    Ok(())
}

#[test]
fn a_node_moves_from_one_data_plane_to_the_other_and_back() -> Result<()> {
    let mut pair = Pair::start(["ebpf", "ebpf"])?;
    let _server = Server::start(&pair.server.netns)?;
    pair.expect_connected()?;
    for datapath in ["userspace", "ebpf"] {
        pair.bed.netmanager.terminate()?;
        write_config(&pair.bed.places, &with_datapath(datapath))?;
        pair.bed.netmanager.start_again()?;
        pair.bed.wait_until_ready()?;
        assert_eq!(pair.bed.status()?["mode"], datapath);
        pair.expect_connected().with_context(|| datapath.to_owned())?;
        let guarded = pair.bed.node.output("nft", &["list", "tables"])?.contains("hypha-guard");
        assert_eq!(guarded, datapath == "userspace", "one data plane, and what is around it");
    }
    Ok(())
}

/// A node whose netmanager may not call bpf(2), as in a sandbox.
#[test]
fn a_daemon_that_may_not_use_bpf_forwards_packets_itself_and_says_so_loudly() -> Result<()> {
    let mut pair = Pair::start(["ebpf", "ebpf"])?;
    let _server = Server::start(&pair.server.netns)?;
    pair.expect_connected()?;
    let bed = &mut pair.bed;
    bed.netmanager.terminate()?;
    write_config(&bed.places, &config())?;
    let start = recipe(&bed.node, &bed.places)?;
    bed.netmanager = denied::without_bpf(|| start.start())?;
    wait_until_ready(&mut bed.netmanager, &bed.places)?;
    pair.expect_connected()?;

    let status = pair.bed.status()?;
    assert_eq!(status["mode"], "userspace");
    let reason = status["daemon"]["fallback"].as_str().with_context(|| format!("no reason: {status}"))?;
    assert!(!reason.is_empty());
    let shown = process::output(&mut pair.bed.command("status")?)?;
    assert!(shown.contains("! The daemon forwards packets itself"), "{shown}");
    let log = pair.bed.log()?;
    let warned = log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("this process forwards packets itself"));
    assert!(warned, "{log}");
    let (_, metrics) = request(&pair.bed.places.socket(), "GET /metrics", "")?;
    for line in ["hypha_netmanager_datapath_fallback 1", "hypha_netmanager_datapath{mode=\"userspace\"} 1"] {
        assert!(metrics.lines().any(|said| said == line), "{line} is not in {metrics}");
    }

    // What must be in the kernel does not start there, and says why.
    pair.bed.netmanager.terminate()?;
    write_config(&pair.bed.places, &with_datapath("ebpf"))?;
    let (status, said) = denied::without_bpf(|| pair.bed.netmanager.start_second())?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
    Ok(())
}
