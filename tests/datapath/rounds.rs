//! Time and again the daemon dies, is replaced by another version or loses its pins, while packets run.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netmanager::datapath::{Datapath, DatapathError, Policy};
use netmanager_common::ABI_VERSION;

use crate::nodes::{Container, Node, Underlay, publish_instances};
use crate::talk::{PORT, connect, echo, exchange, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
const ECHO: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 11);
/// How often, unless [`DEATHS`] says otherwise.
const ROUNDS: u32 = 100;
/// In the environment: how often instead.
const DEATHS: &str = "HYPHA_DEATHS";

/// What happens to the daemon of a node.
#[derive(Debug, Clone, Copy)]
enum Round {
    /// It is killed and started again.
    Kill,
    /// It is killed; the next one takes the tables for those of another version, newer or older.
    Replace { version: u32 },
    /// The BPF file system is mounted anew under it: the pins are gone. Then it is killed.
    LosePins,
}

impl Round {
    fn of(number: u32) -> Self {
        match number % 4 {
            0 => Self::Kill,
            1 => Self::Replace { version: ABI_VERSION + 1 },
            2 => Self::LosePins,
            _ => Self::Replace { version: ABI_VERSION - 1 },
        }
    }

    fn play(
        self,
        mut node: Node,
        set_up: &(impl Fn(&mut Datapath) -> Result<(), DatapathError> + Sync),
    ) -> Node {
        let pins = node.pins.path().to_owned();
        if let Self::LosePins = self {
            fs::remove_dir_all(&pins).unwrap();
            node.within(Datapath::repair).unwrap();
        }
        let crashed = node.crash();
        if let Self::Replace { version } = self {
            let tables = |version| pins.join(format!("abi-{version}"));
            fs::rename(tables(ABI_VERSION), tables(version)).unwrap();
        }
        let mut node = crashed.start();
        // As the daemon does when it starts: everything once more, then what nobody wanted goes.
        node.within(|datapath| set_up(datapath).and_then(|()| datapath.sweep())).unwrap();
        node
    }
}

/// Asks again and again, each time when it was answered, and gives how often.
fn ask_on(client: &Container, stop: &AtomicBool) -> u64 {
    let socket = client.netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
    socket.connect((SERVICE, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        socket.send(b"who?").unwrap();
        socket.recv(&mut [0; 64]).unwrap_or_else(|error| panic!("after {answered} answers: {error}"));
        answered += 1;
    }
    answered
}

#[test]
fn deaths_and_replacements_of_the_daemon_lose_no_packet_and_leave_one_program_at_each_place() {
    let rounds = std::env::var(DEATHS).map_or(ROUNDS, |number| number.parse().expect(DEATHS));
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let servers = [2, 3].map(|m| underlay.nodes[1].container(m));
    publish_instances(&mut underlay.nodes, &[&client, &servers[0], &servers[1]]);
    serve(&servers[0]);
    echo(&servers[1]);
    let mut node = underlay.nodes.remove(0);
    let (addresses, uplink) = (node.addresses(), node.ifindex("up0"));
    let set_up = |datapath: &mut Datapath| {
        for known in [&client, &servers[0], &servers[1]] {
            let backend = known.backend;
            datapath.publish_service(backend.instance_ip, Policy::Instance, &[backend])?;
        }
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[servers[0].backend])?;
        datapath.publish_service(ECHO, Policy::RoundRobin, &[servers[1].backend])?;
        datapath.attach_endpoint(&client.endpoint)?;
        datapath.set_node(addresses, uplink)
    };
    node.within(set_up).unwrap();
    let mut stream = connect(&client, ECHO);
    exchange(&mut stream, 1);

    let stop = AtomicBool::new(false);
    let (node, answered) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_on(&client, &stop));
        for number in 0..rounds {
            if asking.is_finished() {
                break;
            }
            node = Round::of(number).play(node, &set_up);
            node.assert_attached(2);
            exchange(&mut stream, 1);
        }
        stop.store(true, Ordering::Relaxed);
        (node, asking.join().unwrap())
    });
    println!("{answered} datagrams answered in {rounds} rounds");
    assert!(answered > u64::from(rounds), "{answered} are too few to tell");
    assert_eq!(node.datapath.counters().unwrap().drops, []);
}
