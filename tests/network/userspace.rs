//! The daemon without BPF: two nodes whose netmanagers forward packets themselves.

mod shown;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{Netns, eventually, process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, Container, config, recipe, request, wait_until_ready, write_config};
use crate::denied;
use crate::neighbour::Neighbour;
use integration::cluster::WEB_ADDRESS;

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
