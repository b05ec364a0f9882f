//! Beside other eBPF tools and firewalls: ours stays, theirs stays, and everything is carried.

use std::net::Ipv4Addr;

use aya::programs::{SchedClassifier, TcAttachType};
use netmanager::datapath::{FROM_CONTAINER, FROM_UPLINK, Hook, Policy};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::foreign::{self, Foreign, Place};
use crate::nodes::{Container, Node, Underlay, has_tcx, hook, publish_instances};
use crate::talk::{Answer, ask, ask_by_datagram, ping, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
/// The uplink of a node, and the host side of its container.
const INTERFACES: [&str; 2] = ["up0", "veth2"];

/// Two nodes, a client on the first and a server on the second.
struct World {
    underlay: Underlay,
    client: Container,
    server: Container,
}

impl World {
    fn new(hook: Hook) -> Self {
        let mut underlay = Underlay::with_hook(2, hook);
        let client = underlay.nodes[0].container(2);
        let server = underlay.nodes[1].container(2);
        publish_instances(&mut underlay.nodes, &[&client, &server]);
        let backends = [server.backend];
        underlay.nodes[0]
            .within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &backends))
            .unwrap();
        serve(&server);
        Self { underlay, client, server }
    }

    #[track_caller]
    fn assert_carried(&self) {
        let answer = Answer::of(&self.server, &self.client);
        assert_eq!(ask(&self.client, SERVICE), answer);
        assert_eq!(ask_by_datagram(&self.client, SERVICE).unwrap(), answer);
        ping(&self.client, SERVICE);
    }

    /// Every daemon dies and starts again, and attaches its programs anew.
    fn restart(&mut self) {
        self.underlay.nodes = self.underlay.nodes.drain(..).map(|node| node.crash().start()).collect();
    }
}

/// Programs at the ingress of an interface by tcx, in the order in which they run.
fn tcx(node: &Node, interface: &str) -> Vec<String> {
    let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap().1;
    let programs = node.netns.run(query).unwrap();
    programs.iter().map(|program| program.name_as_str().unwrap().to_owned()).collect()
}

fn attach(node: &Node, interface: &str, place: Place) -> Foreign {
    let ifindex = node.ifindex(interface);
    node.netns.run(|| Foreign::attach(ifindex, place)).unwrap().unwrap()
}

#[test]
fn tcx_programs_of_others_before_and_after_ours_stay_and_are_passed() {
    if !has_tcx() {
        return;
    }
    let mut world = World::new(Hook::Tcx);
    let mut held = Vec::new();
    for node in &world.underlay.nodes {
        for interface in INTERFACES {
            held.extend([Place::First, Place::Last].map(|place| attach(node, interface, place)));
        }
    }
    world.assert_carried();
    world.restart();
    world.assert_carried();
    for node in &world.underlay.nodes {
        for (interface, ours) in INTERFACES.into_iter().zip([FROM_UPLINK, FROM_CONTAINER]) {
            assert_eq!(tcx(node, interface), [foreign::NAME, ours, foreign::NAME], "{interface}");
        }
    }
}

#[test]
fn filters_of_others_stay_and_are_passed() {
    let mut world = World::new(hook());
    let others = |node: &Node, interface| {
        let shown = node.netns.output("tc", &["filter", "show", "dev", interface, "ingress"]).unwrap();
        ["pref 1 ", "pref 50000 "].map(|filter| shown.lines().any(|line| line.contains(filter)))
    };
    for node in &world.underlay.nodes {
        for interface in INTERFACES {
            if hook() == Hook::Tcx {
                node.netns.output("tc", &["qdisc", "add", "dev", interface, "clsact"]).unwrap();
            }
            for priority in ["1", "50000"] {
                // One instruction: return "no match".
                let program = ["bpf", "bytecode", "1,6 0 0 0"];
                let filter = ["filter", "add", "dev", interface, "ingress", "pref", priority];
                node.netns.output("tc", &[filter.as_slice(), &program].concat()).unwrap();
            }
        }
    }
    world.assert_carried();
    world.restart();
    world.assert_carried();
    for node in &world.underlay.nodes {
        for interface in INTERFACES {
            assert_eq!(others(node, interface), [true; 2], "{interface}");
        }
    }
}

#[test]
fn an_xdp_program_of_others_on_the_uplink_stays_and_is_passed() {
    let mut world = World::new(hook());
    let held: Vec<_> = world.underlay.nodes.iter().map(|node| attach(node, "up0", Place::Xdp)).collect();
    world.assert_carried();
    world.restart();
    world.assert_carried();
    for node in &world.underlay.nodes {
        let shown = node.netns.output("ip", &["link", "show", "dev", "up0"]).unwrap();
        assert!(shown.contains("prog/xdp"), "{shown}");
    }
    drop(held);
}

#[test]
fn a_firewall_that_drops_everything_does_not_see_the_overlay() {
    let world = World::new(hook());
    let chain = |hook| format!("chain {hook} {{ type filter hook {hook} priority 0; policy drop; }}");
    let rules = ["input", "forward", "output"].map(chain).join("\n");
    for node in &world.underlay.nodes {
        node.netns.output("nft", &[&format!("table inet firewall {{ {rules}\n}}")]).unwrap();
    }
    world.assert_carried();
    let unseen = world.underlay.nodes[0].netns.output("ping", &["-n", "-c", "1", "-W", "1", "192.0.2.2"]);
    assert!(unseen.is_err(), "the firewall drops what it does see");
}

/// A new BPF file system over a directory, which hides what is pinned there. As when somebody mounts one where there is
/// one already.
struct Mounted<'a>(&'a std::path::Path);

impl<'a> Mounted<'a> {
    fn over(path: &'a std::path::Path) -> Self {
        mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).ok();
    }
}

#[test]
fn a_bpf_file_system_that_is_mounted_anew_leaves_one_program_at_each_hook() {
    if !has_tcx() {
        return;
    }
    let mut world = World::new(Hook::Tcx);
    let path = world.underlay.nodes[0].pins.path().to_owned();
    let mounted = Mounted::over(&path);
    // While the daemon runs, its tables go on.
    world.underlay.nodes[0].within(|datapath| datapath.repair()).unwrap();
    world.assert_carried();
    let one_each = |world: &World| {
        for (interface, ours) in INTERFACES.into_iter().zip([FROM_UPLINK, FROM_CONTAINER]) {
            assert_eq!(tcx(&world.underlay.nodes[0], interface), [ours], "{interface}");
        }
    };
    one_each(&world);
    drop(mounted);

    // Or it starts on an empty file system, with empty tables that are filled again.
    let mounted = Mounted::over(&path);
    world.restart();
    let World { underlay, client, server } = &mut world;
    let node = &mut underlay.nodes[0];
    let (addresses, uplink) = (node.addresses(), node.ifindex("up0"));
    node.within(|datapath| {
        for instance in [client.backend, server.backend] {
            datapath.publish_service(instance.instance_ip, Policy::Instance, &[instance])?;
        }
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[server.backend])?;
        datapath.attach_endpoint(&client.endpoint)?;
        datapath.set_node(addresses, uplink)
    })
    .unwrap();
    one_each(&world);
    world.assert_carried();
    drop(mounted);
}
