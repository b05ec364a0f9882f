//! Backends that do not answer, noticed by the node that asks them, without the control plane.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::{Netns, eventually};
use netmanager::balance::Balance;
use netmanager::datapath::{Backend, Datapath, Event, Policy, Service};
use netmanager::slowpath::News;
use netmanager::table::Entry;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nodes::{Cable, Container, Family, Node, Underlay, hook, publish_instances};
use crate::running::Served;
use crate::talk::{PORT, ask, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
/// Of connections that stay open.
const ECHO_PORT: u16 = 9001;
/// A busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// The service as the watched node has it.
struct Shown(Mutex<Service>);

impl Shown {
    fn look(&self, datapath: &impl Served) {
        let service = datapath.services().into_iter().find(|service| service.service_ip == SERVICE);
        *self.0.lock().unwrap() = service.expect("it is published");
    }

    fn service(&self) -> Service {
        self.0.lock().unwrap().clone()
    }
}

/// Runs `test` while the node sets backends aside and takes them back, as its daemon does.
fn watched<D: Served>(node: &mut Node<D>, backends: Vec<Backend>, test: impl FnOnce(&Shown)) {
    let stop = CancellationToken::new();
    let shown = Shown(Mutex::new(Service {
        service_ip: SERVICE.into(),
        policy: Policy::RoundRobin,
        backends: backends.clone(),
        resting: Vec::new(),
    }));
    node.within(|datapath| datapath.publish_service(SERVICE.into(), Policy::RoundRobin, &backends));
    thread::scope(|scope| {
        let Node { netns, datapath, .. } = node;
        let (stop_too, shown) = (stop.clone(), &shown);
        scope.spawn(move || netns.run(|| watch(datapath, backends, shown, &stop_too)).unwrap());
        let _stopped = stop.drop_guard();
        test(shown);
    });
}

fn watch<D: Served>(datapath: &mut D, backends: Vec<Backend>, shown: &Shown, stop: &CancellationToken) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let mut slow_path = datapath.slow_path(&tasks, stop.clone()).await;
        let mut events = datapath.events();
        let mut balance = Balance::adopt(datapath.plane(), Instant::now());
        let entry = Entry { backends, ..Entry::empty(Policy::RoundRobin) };
        balance.publish(datapath.plane(), SERVICE.into(), entry).unwrap();
        while !stop.is_cancelled() {
            let deadline = balance.deadline().unwrap_or_else(|| Instant::now() + PATIENCE);
            tokio::select! {
                () = stop.cancelled() => {}
                event = events.next() => match event.unwrap() {
                    Event::Suspect(suspect) => {
                        balance.suspected(datapath.plane(), Some(&slow_path), suspect, Instant::now());
                    }
                    Event::Miss(miss) => panic!("{miss:?}"),
                },
                news = slow_path.next() => match news {
                    News::Untaken(untaken) => {
                        balance.untaken(datapath.plane(), Some(&slow_path), untaken, Instant::now());
                    }
                    News::Missed(address) => panic!("{address} is asked for"),
                },
                () = sleep_until(deadline.into()) => {}
            }
            balance.tick(datapath.plane(), Some(&slow_path), Instant::now());
            shown.look(datapath);
        }
        datapath.close_slow_path();
        tasks.close();
        tasks.wait().await;
    });
}

/// Waits until just these backends get no new flows.
#[track_caller]
fn resting(shown: &Shown, expected: &[Backend]) {
    eventually(PATIENCE, "who rests", || {
        let resting = shown.service().resting;
        if resting == expected { Ok(()) } else { Err(resting) }
    })
    .unwrap();
}

/// A client on the first node, and a server on each of the two others.
fn client_and_servers<D: Served>(underlay: &mut Underlay<D>) -> (Container, [Container; 2]) {
    let client = underlay.nodes[0].container(2);
    let servers = [1, 2].map(|node| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &servers[0], &servers[1]]);
    servers.iter().for_each(serve);
    servers.iter().for_each(echo);
    (client, servers)
}

/// As [`crate::talk::echo`], on a port of its own.
fn echo(server: &Container) {
    let listener = server.netns.run(|| TcpListener::bind(("0.0.0.0", ECHO_PORT)).unwrap()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
}

fn open(client: &Container) -> TcpStream {
    let stream = client.netns.run(|| TcpStream::connect((SERVICE, ECHO_PORT)).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn echoes(stream: &mut TcpStream) {
    let mut back = [0; 4];
    stream.write_all(b"ping").unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}

/// A datagram socket whose port stays, and who answered it first.
fn fixed_port(client: &Container) -> (UdpSocket, Ipv4Addr) {
    let socket = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    socket.connect((SERVICE, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let by = answered_by(&socket).expect("an answer");
    (socket, by)
}

/// Asks once more, without a long wait.
fn answered_by(socket: &UdpSocket) -> Option<Ipv4Addr> {
    let mut buffer = [0; 256];
    // An error may be one that ICMP has brought for an earlier datagram.
    socket.send(b"who?").ok()?;
    let length = socket.recv(&mut buffer).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).expect("text");
    text.split_whitespace().next()?.parse().ok()
}

/// Sockets of which one is answered by each of the servers.
fn one_of_each(client: &Container, servers: &[Container; 2]) -> [UdpSocket; 2] {
    let found = [fixed_port(client), fixed_port(client)];
    let [(a, by_a), (b, by_b)] = found;
    assert_ne!(by_a, by_b, "they take turns");
    if by_a == servers[0].backend.ns_ip { [a, b] } else { [b, a] }
}

/// What became of a connection, and when it was begun.
#[derive(Debug)]
struct Attempt {
    begun: Instant,
    established: bool,
}

/// Begins two hundred connections a second at most, each with the time that two retransmissions take. Not more, and none
/// is made up for: an emulated machine that is asked for more loses some by itself.
fn connections(netns: &Netns, go_on: &AtomicBool) -> Vec<Attempt> {
    let attempt = || async {
        let begun = Instant::now();
        let connect = tokio::net::TcpStream::connect(SocketAddr::from((SERVICE, PORT)));
        let connected = tokio::time::timeout(Duration::from_millis(3500), connect).await;
        Attempt { begun, established: connected.is_ok_and(|connected| connected.is_ok()) }
    };
    let drive = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pulse = tokio::time::interval(Duration::from_millis(5));
            pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let local = tokio::task::LocalSet::new();
            let attempts = local.run_until(async {
                let mut attempts = Vec::new();
                while go_on.load(Ordering::Relaxed) {
                    pulse.tick().await;
                    attempts.push(tokio::task::spawn_local(attempt()));
                }
                attempts
            });
            let attempts = attempts.await;
            local.await;
            let mut done = Vec::new();
            for attempt in attempts {
                done.push(attempt.await.unwrap());
            }
            done
        })
    };
    netns.run(drive).unwrap()
}

fn underlay<D: Served>(count: u8) -> Underlay<D> {
    Underlay::with(count, hook(), Family::V4)
}

fn a_node_dies<D: Served>() {
    let mut underlay = underlay::<D>(3);
    let (client, servers) = client_and_servers(&mut underlay);
    let [_, dies] = &servers;
    let Underlay { nodes, switch } = &mut underlay;
    let backends = servers.iter().map(|server| server.backend).collect();
    watched(&mut nodes[0], backends, |shown| {
        let mut streams = [open(&client), open(&client)];
        streams.iter_mut().for_each(echoes);
        let [stays, moves] = one_of_each(&client, &servers);
        let go_on = AtomicBool::new(true);
        let (killed, noticed, attempts) = thread::scope(|scope| {
            let attempts = scope.spawn(|| connections(&client.netns, &go_on));
            // Not at a moment when nothing is under way.
            thread::sleep(Duration::from_millis(500));
            Underlay::cable(switch, 3, Cable::Out);
            let killed = Instant::now();
            resting(shown, &[dies.backend]);
            let noticed = Instant::now();
            eventually(PATIENCE, "an answer on the fixed port", || {
                answered_by(&moves).filter(|by| *by == servers[0].backend.ns_ip).ok_or(())
            })
            .unwrap();
            println!(
                "fixed port: answered again {} ms after the end of the node",
                killed.elapsed().as_millis()
            );
            let by = eventually(PATIENCE, "an answer on the other port", || answered_by(&stays).ok_or(()));
            assert_eq!(by.unwrap(), servers[0].backend.ns_ip, "nobody else moves");
            thread::sleep(Duration::from_secs(1));
            go_on.store(false, Ordering::Relaxed);
            (killed, noticed, attempts.join().unwrap())
        });
        let after_kill = |attempt: &&Attempt| attempt.begun > killed;
        let failed: Vec<_> = attempts.iter().filter(after_kill).filter(|it| !it.established).collect();
        let last = failed.iter().map(|attempt| attempt.begun - killed).max().unwrap_or_default();
        println!(
            "{} connections, {} of them after the end of the node, which was noticed after {} ms; {} failed, the last begun after {} ms",
            attempts.len(),
            attempts.iter().filter(after_kill).count(),
            (noticed - killed).as_millis(),
            failed.len(),
            last.as_millis(),
        );
        let (first, count) = (failed.first(), failed.len());
        assert!(last <= noticed - killed, "{count} failed, also after it was noticed, from {first:?} on");
        assert!(attempts.iter().any(|attempt| attempt.begun > noticed), "some were begun later");
        assert!(attempts.iter().filter(|attempt| attempt.begun < killed).all(|attempt| attempt.established));

        Underlay::cable(switch, 3, Cable::In);
        resting(shown, &[]);
        assert_eq!(shown.service().backends, servers.iter().map(|it| it.backend).collect::<Vec<_>>());
        let answers: Vec<_> = (0..4).map(|_| ask(&client, SERVICE).by).collect();
        assert!(servers.iter().all(|server| answers.contains(&server.backend.ns_ip.into())), "{answers:?}");
        // Connections outlive what was wrong, also those with the node that was away.
        streams.iter_mut().for_each(echoes);
    });
}

fn a_process_dies<D: Served>() {
    let mut underlay = underlay::<D>(3);
    let client = underlay.nodes[0].container(2);
    let servers = [1, 2].map(|node| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &servers[0], &servers[1]]);
    serve(&servers[0]);
    let listen = || servers[1].netns.run(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
    let backends = servers.iter().map(|server| server.backend).collect();
    watched(&mut underlay.nodes[0], backends, |shown| {
        let listener = listen();
        let connect = || client.netns.run(|| TcpStream::connect((SERVICE, PORT))).unwrap();
        for _ in 0..4 {
            connect().unwrap();
        }
        drop(listener);
        eventually(PATIENCE, "the end of refusals", || {
            let refused = connect().is_err();
            let resting = shown.service().resting;
            if resting == [servers[1].backend] { Ok(()) } else { Err((refused, resting)) }
        })
        .unwrap();
        for _ in 0..8 {
            connect().unwrap();
        }
        let _listener = listen();
        resting(shown, &[]);
        for _ in 0..4 {
            connect().unwrap();
        }
    });
}

fn nobody_takes_datagrams<D: Served>() {
    let mut underlay = underlay::<D>(2);
    let client = underlay.nodes[0].container(2);
    let closed = underlay.nodes[0].container(3);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &closed, &server]);
    serve(&server);
    let backends = vec![closed.backend, server.backend];
    watched(&mut underlay.nodes[0], backends, |shown| {
        // Sockets of their own, since what has a flow stays with it.
        let send = || {
            let socket = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket.connect((SERVICE, PORT)).unwrap();
            answered_by(&socket)
        };
        eventually(PATIENCE, "it to be set aside", || {
            let by = send();
            let aside = shown.service().resting;
            if aside == [closed.backend] { Ok(()) } else { Err((by, aside)) }
        })
        .unwrap();
        // What comes to a socket is taken, whoever reads it or not.
        let socket = closed.netns.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
        resting(shown, &[]);
        drop(socket);
    });
}

fn ports_are_scanned<D: Served>() {
    let mut underlay = underlay::<D>(3);
    let (client, servers) = client_and_servers(&mut underlay);
    let backends = servers.iter().map(|server| server.backend).collect();
    watched(&mut underlay.nodes[0], backends, |shown| {
        for port in 10_000..10_100 {
            let refused = client.netns.run(|| TcpStream::connect((SERVICE, port))).unwrap();
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            let socket = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
            socket.connect((SERVICE, 10_000)).unwrap();
            // Linux says of no more than a few that nobody takes them.
            socket.send(b"who?").unwrap();
        }
        assert_eq!(shown.service().resting, []);
    });
}

#[test]
fn a_node_that_dies_fails_no_new_connection_once_it_is_noticed_and_moves_nobody_elses_flow() {
    a_node_dies::<Datapath>();
}

#[test]
fn an_instance_whose_process_has_died_gets_no_new_connections_until_it_listens_again() {
    a_process_dies::<Datapath>();
}

#[test]
fn an_instance_that_takes_no_datagrams_gets_none_while_another_one_does() {
    nobody_takes_datagrams::<Datapath>();
}

#[test]
fn who_scans_ports_sets_nobody_aside() {
    ports_are_scanned::<Datapath>();
}

mod in_user_space {
    use super::{a_node_dies, a_process_dies, nobody_takes_datagrams, ports_are_scanned};
    use crate::userspace::Userspace;

    #[test]
    fn a_node_that_dies_fails_no_new_connection_once_it_is_noticed_and_moves_nobody_elses_flow() {
        a_node_dies::<Userspace>();
    }

    #[test]
    fn an_instance_whose_process_has_died_gets_no_new_connections_until_it_listens_again() {
        a_process_dies::<Userspace>();
    }

    #[test]
    fn an_instance_that_takes_no_datagrams_gets_none_while_another_one_does() {
        nobody_takes_datagrams::<Userspace>();
    }

    #[test]
    fn who_scans_ports_sets_nobody_aside() {
        ports_are_scanned::<Userspace>();
    }
}
