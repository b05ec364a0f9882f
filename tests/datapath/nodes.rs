//! Two or more nodes as network namespaces on one underlay, with containers that are attached the way netmanager
//! attaches them, but by `ip` and not by netmanager.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use integration::{Netns, eventually};
use netmanager::datapath::{
    Addresses, Backend, Datapath, Decapsulation, Endpoint, Hook, Options, Place, Policy,
};
use nix::net::if_::{if_nameindex, if_nametoindex};
use protocol::plan::Plan;

use crate::pins::Pins;

pub(crate) const TUNNEL_PORT: u16 = 50103;
const INNER_MTU: u16 = 1450;

/// In the environment: `clsact` makes all nodes attach their programs as on kernels without tcx.
const HOOK: &str = "HYPHA_HOOK";

/// How nodes attach their programs where a test does not care. Each test runs both ways.
pub(crate) fn hook() -> Hook {
    match std::env::var(HOOK).as_deref() {
        Ok("clsact") => Hook::Clsact,
        Ok(other) => panic!("{HOOK}={other}: expected clsact"),
        Err(_unset) => Hook::probe(),
    }
}

/// In the environment: `xdp` makes all nodes take outer headers off in the driver, tc and no XDP program otherwise.
const DECAPSULATION: &str = "HYPHA_DECAP";

/// Where nodes take outer headers off where a test does not care.
pub(crate) fn decapsulation() -> Decapsulation {
    match std::env::var(DECAPSULATION) {
        Ok(place) => place.parse().unwrap(),
        Err(_unset) => Decapsulation::Tc,
    }
}

/// Whether the kernel has tcx; said where it has not.
pub(crate) fn has_tcx() -> bool {
    let there = Hook::probe() == Hook::Tcx;
    if !there {
        println!("skipped: tcx needs Linux 6.6");
    }
    there
}

/// Of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// A node of number `n`: underlay address 192.0.2.n or 2001:db8::n, containers 10.18.n.2 and fc00::n02 and up.
#[derive(Debug)]
pub(crate) struct Node<D = Datapath> {
    pub(crate) number: u8,
    pub(crate) netns: Netns,
    pub(crate) datapath: D,
    pub(crate) pins: Pins,
    hook: Hook,
    underlay: Family,
}

/// A node without a daemon.
pub(crate) type Crashed = Node<()>;

/// A container: NsIPs 10.18.n.m and fc00::n<m>, instance addresses 10.30.1n.m and fdff::n<m>.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) netns: Netns,
    pub(crate) backend: Backend,
    pub(crate) endpoint: Endpoint,
}

/// Whether a node is on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    In,
    Out,
}

/// `count` nodes joined by a bridge in a namespace of its own.
#[derive(Debug)]
pub(crate) struct Underlay<D = Datapath> {
    pub(crate) nodes: Vec<Node<D>>,
    pub(crate) switch: Netns,
}

/// A data plane, as far as it takes to set up nodes.
pub(crate) trait Verbs: Sized + Send {
    /// How the names of containers' links begin.
    const LINK: &str = "veth";

    /// In the namespace of the calling thread.
    fn open(pins: &Pins, hook: Hook) -> Self;
    fn set_node(&mut self, addresses: Addresses, uplink: u32);
    fn attach_endpoint(&mut self, endpoint: &Endpoint);
    fn publish_service(&mut self, address: IpAddr, policy: Policy, backends: &[Backend]);
}

impl Verbs for Datapath {
    fn open(pins: &Pins, hook: Hook) -> Self {
        let options =
            Options { pin_dir: pins.path().to_owned(), tunnel_port: TUNNEL_PORT, plan: Plan::default() };
        Self::open_with(options, hook).unwrap()
    }

    fn set_node(&mut self, addresses: Addresses, uplink: u32) {
        self.set_node(addresses, uplink).unwrap();
        decapsulate(self, decapsulation());
    }

    fn attach_endpoint(&mut self, endpoint: &Endpoint) {
        self.attach_endpoint(endpoint).unwrap();
    }

    fn publish_service(&mut self, address: IpAddr, policy: Policy, backends: &[Backend]) {
        self.publish_service(address, policy, backends).unwrap();
    }
}

#[track_caller]
fn decapsulate(datapath: &mut Datapath, wanted: Decapsulation) {
    let placements = datapath.decapsulate(wanted).unwrap();
    let expected = if wanted == Decapsulation::Xdp { Place::Xdp } else { Place::Tc };
    assert!(!placements.is_empty() && placements.iter().all(|it| it.place == expected), "{placements:?}");
}

impl Underlay {
    /// Pulls the cable of node `number`, or puts it back.
    pub(crate) fn cable(switch: &Netns, number: u8, state: Cable) {
        let state = match state {
            Cable::Out => "down",
            Cable::In => "up",
        };
        switch.ip(&format!("link set port{number} {state}")).unwrap();
    }

    pub(crate) fn new(count: u8) -> Self {
        Self::with_hook(count, hook())
    }

    pub(crate) fn with_hook(count: u8, hook: Hook) -> Self {
        Self::with(count, hook, Family::V4)
    }

    /// The nodes have addresses of this family only.
    pub(crate) fn of(family: Family, count: u8) -> Self {
        Self::with(count, hook(), family)
    }
}

impl<D: Verbs> Underlay<D> {
    pub(crate) fn with(count: u8, hook: Hook, family: Family) -> Self {
        let switch = Netns::new("switch").unwrap();
        switch.ip("link add br0 type bridge").unwrap();
        switch.ip("link set br0 up").unwrap();
        let mut underlay = Self { nodes: Vec::new(), switch };
        for number in 1..=count {
            let node = underlay.join(number, hook, family);
            underlay.nodes.push(node);
        }
        underlay
    }

    /// One more node, which may have another data plane than these.
    pub(crate) fn join<E: Verbs>(&self, number: u8, hook: Hook, family: Family) -> Node<E> {
        let netns = Netns::new(&format!("node{number}")).unwrap();
        let port = format!("port{number}");
        integration::netns::connect((&netns, "up0"), (&self.switch, &port)).unwrap();
        self.switch.ip(&format!("link set {port} master br0")).unwrap();
        Node::new(netns, number, hook, family)
    }
}

/// Two nodes, each behind a router of its own. The link between the routers is `mid` in both.
#[derive(Debug)]
pub(crate) struct Routed<D = Datapath> {
    pub(crate) nodes: Vec<Node<D>>,
    pub(crate) routers: Vec<Netns>,
}

impl<D: Verbs> Routed<D> {
    /// The nodes have addresses of this family only.
    pub(crate) fn new(family: Family) -> Self {
        let (prefix, gateway, forwarding) = match family {
            Family::V4 => ("32", "192.0.2.254", "net.ipv4.ip_forward=1"),
            Family::V6 => ("128", "2001:db8::fe", "net.ipv6.conf.all.forwarding=1"),
        };
        let routers: Vec<_> = (1..=2).map(|n| Netns::new(&format!("router{n}")).unwrap()).collect();
        integration::netns::connect((&routers[0], "mid"), (&routers[1], "mid")).unwrap();
        let quiet = if family == Family::V6 { "nodad" } else { "" };
        let nodes: Vec<_> = (1..=2)
            .zip(&routers)
            .map(|(number, router)| {
                let netns = Netns::new(&format!("node{number}")).unwrap();
                integration::netns::connect((&netns, "up0"), (router, "near")).unwrap();
                sysctl(router, forwarding);
                let node = Node::new(netns, number, hook(), family);
                let address = node.address();
                // The nodes are no neighbours: there is a router, and nothing else, on the link of each.
                node.netns.ip("addr flush dev up0 scope global").unwrap();
                node.netns.ip(&format!("addr add {address}/{prefix} dev up0 {quiet}")).unwrap();
                node.netns.ip(&format!("route add {gateway}/{prefix} dev up0")).unwrap();
                node.netns.ip(&format!("route add default via {gateway} dev up0")).unwrap();
                router.ip(&format!("addr add {gateway}/{prefix} dev near {quiet}")).unwrap();
                router.ip(&format!("route add {address}/{prefix} dev near")).unwrap();
                node
            })
            .collect();
        for (number, router) in (1..=2).zip(&routers) {
            let (own, far) = match family {
                Family::V4 => (format!("198.51.100.{number}/24"), format!("198.51.100.{}", 3 - number)),
                Family::V6 => (format!("2001:db8:1::{number}/64"), format!("2001:db8:1::{}", 3 - number)),
            };
            router.ip(&format!("addr add {own} dev mid {quiet}")).unwrap();
            router.ip(&format!("route add default via {far} dev mid")).unwrap();
        }
        Self { nodes, routers }
    }
}

impl<D: Verbs> Node<D> {
    fn new(netns: Netns, number: u8, hook: Hook, underlay: Family) -> Self {
        sysctl(&netns, "net.ipv4.ip_forward=1");
        let mut node: Self = Node { number, netns, datapath: (), pins: Pins::new(), hook, underlay }.open();
        match node.address() {
            IpAddr::V4(address) => node.netns.ip(&format!("addr add {address}/24 dev up0")).unwrap(),
            IpAddr::V6(address) => node.netns.ip(&format!("addr add {address}/64 dev up0 nodad")).unwrap(),
        }
        let (addresses, uplink) = (node.addresses(), node.ifindex("up0"));
        node.within(|datapath| datapath.set_node(addresses, uplink));
        node
    }

    fn address(&self) -> IpAddr {
        match self.underlay {
            Family::V4 => Ipv4Addr::new(192, 0, 2, self.number).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }

    pub(crate) fn addresses(&self) -> Addresses {
        match self.address() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }

    /// Acts on the data plane inside of the node's namespace.
    pub(crate) fn within<T: Send>(&mut self, work: impl FnOnce(&mut D) -> T + Send) -> T {
        let datapath = &mut self.datapath;
        self.netns.run(|| work(datapath)).unwrap()
    }

    /// The daemon is gone. Whatever it would do at a clean end is not done.
    pub(crate) fn crash(self) -> Crashed {
        let Self { number, netns, datapath, pins, hook, underlay } = self;
        drop(datapath);
        Node { number, netns, datapath: (), pins, hook, underlay }
    }

    /// Makes container `m` of this node and attaches it.
    pub(crate) fn container(&mut self, m: u8) -> Container {
        let n = self.number;
        let netns = Netns::new(&format!("c{n}-{m}")).unwrap();
        let veth = format!("{}{m}", D::LINK);
        self.netns
            .ip(&format!(
                "link add {veth} mtu {INNER_MTU} type veth peer name eth0 mtu {INNER_MTU} netns {}",
                netns.path().display()
            ))
            .unwrap();
        // Else the kernel looks for IPv6 routers at the link's own address, which the data plane drops and counts.
        let silent = if kernel_has_ipv6() { "addrgenmode none" } else { "" };
        self.netns.ip(&format!("link set {veth} {silent} up")).unwrap();
        netns.ip(&format!("link set eth0 {silent} up")).unwrap();
        let (mac, gateway_mac) = (mac_of(&netns, "eth0"), self.mac(&veth));
        let ns_ip = Ipv4Addr::new(10, 18, n, m);
        let ns_ip6 = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([n, m]));
        let gateways =
            [format!("10.18.{n}.1"), Ipv6Addr::from_bits(ns_ip6.to_bits() & !0xff | 1).to_string()];
        let families = if kernel_has_ipv6() { 2 } else { 1 };
        let addresses = [IpAddr::V4(ns_ip), IpAddr::V6(ns_ip6)];
        for (address, gateway) in addresses.into_iter().zip(gateways).take(families) {
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            let nodad = if address.is_ipv4() { "" } else { "nodad" };
            netns.ip(&format!("addr add {address}/{prefix} dev eth0 {nodad}")).unwrap();
            netns.ip(&format!("route add {gateway}/{prefix} dev eth0")).unwrap();
            netns.ip(&format!("route add default via {gateway} dev eth0")).unwrap();
            let shown = text(gateway_mac);
            netns.ip(&format!("neigh add {gateway} lladdr {shown} dev eth0 nud permanent")).unwrap();
            self.netns.ip(&format!("route add {address}/{prefix} dev {veth}")).unwrap();
        }
        let instance_ip = Ipv4Addr::new(10, 30, 10 + n, m);
        let instance_ip6 = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([n, m]));
        let endpoint = Endpoint {
            ns_ip,
            ns_ip6: Some(ns_ip6),
            instance_ip: Some(instance_ip),
            instance_ip6: Some(instance_ip6),
            ifindex: self.ifindex(&veth),
            mac,
            gateway_mac,
        };
        self.within(|datapath| datapath.attach_endpoint(&endpoint));
        let node = SocketAddr::new(self.address(), TUNNEL_PORT);
        let backend =
            Backend { ns_ip, ns_ip6: Some(ns_ip6), instance_ip, instance_ip6: Some(instance_ip6), node };
        Container { netns, backend, endpoint }
    }

    pub(crate) fn ifindex(&self, interface: &str) -> u32 {
        self.netns.run(|| if_nametoindex(interface)).unwrap().unwrap()
    }

    fn mac(&self, interface: &str) -> [u8; 6] {
        mac_of(&self.netns, interface)
    }
}

/// A service address whose instances take turns.
pub(crate) fn service(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 30, 2, 10).into(),
        Family::V6 => Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 9).into(),
    }
}

/// What a socket binds that takes any address.
pub(crate) fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A kernel may have been started without IPv6.
pub(crate) fn kernel_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

impl Node {
    /// Takes outer headers off in this place, and in no other.
    #[track_caller]
    pub(crate) fn decapsulate(&mut self, wanted: Decapsulation) {
        self.within(|datapath| decapsulate(datapath, wanted));
    }

    /// The NsIP of the node itself: 10.18.n.62.
    pub(crate) fn own_ns_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 18, self.number, 62)
    }

    /// Gives the node's own processes a way to services.
    pub(crate) fn connect_itself(&mut self) {
        let ns_ip = self.own_ns_ip();
        let silent = if kernel_has_ipv6() { "addrgenmode none" } else { "" };
        self.netns
            .ip(&format!("link add own0 mtu {INNER_MTU} type veth peer name own1 mtu {INNER_MTU}"))
            .unwrap();
        self.netns.ip(&format!("link set own1 {silent} up")).unwrap();
        self.netns.ip(&format!("link set own0 {silent} up")).unwrap();
        self.netns.ip(&format!("addr add {ns_ip}/32 dev own0")).unwrap();
        let (mac, gateway_mac) = (self.mac("own0"), self.mac("own1"));
        let gateway = Ipv4Addr::new(10, 18, self.number, 1);
        let shown = text(gateway_mac);
        self.netns.ip(&format!("neigh add {gateway} lladdr {shown} dev own0 nud permanent")).unwrap();
        self.netns.ip(&format!("route add 10.30.0.0/16 via {gateway} dev own0 onlink src {ns_ip}")).unwrap();
        let endpoint = Endpoint {
            ns_ip,
            ns_ip6: None,
            instance_ip: Some(ns_ip),
            instance_ip6: None,
            ifindex: self.ifindex("own1"),
            mac,
            gateway_mac,
        };
        self.within(|datapath| datapath.attach_node_itself(&endpoint)).unwrap();
    }
}

impl Container {
    pub(crate) fn ns_ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.backend.ns_ip.into(),
            Family::V6 => self.backend.ns_ip6.expect("every container has IPv6").into(),
        }
    }

    pub(crate) fn instance_ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.backend.instance_ip.into(),
            Family::V6 => self.backend.instance_ip6.expect("every container has IPv6").into(),
        }
    }
}

impl Crashed {
    /// A daemon starts.
    pub(crate) fn start(self) -> Node {
        self.open()
    }

    fn open<D: Verbs>(self) -> Node<D> {
        let Self { number, netns, datapath: (), pins, hook, underlay } = self;
        let datapath = netns.run(|| D::open(&pins, hook)).unwrap();
        Node { number, netns, datapath, pins, hook, underlay }
    }
}

impl<D> Node<D> {
    /// Waits until as many programs are attached. A link ends a moment after its pin has been removed: the kernel
    /// lets go of what nobody holds any more in work of its own.
    #[track_caller]
    pub(crate) fn assert_attached(&self, expected: usize) {
        eventually(Duration::from_secs(5), &format!("{expected} attached programs"), || {
            let attached = self.attached_programs();
            if attached == expected { Ok(()) } else { Err(attached) }
        })
        .unwrap();
    }

    /// How many programs are attached to interfaces of the node: tcx links as the kernel lists them, filters of
    /// clsact as bpftool does (not every bpftool knows tcx).
    fn attached_programs(&self) -> usize {
        let filters = self.netns.output("bpftool", &["-j", "net", "show"]).unwrap();
        let filters: serde_json::Value = serde_json::from_str(&filters).unwrap();
        let filters = filters[0]["tc"].as_array().expect("a list");
        let filters = filters
            .iter()
            .filter(|filter| filter["kind"].as_str().is_none_or(|kind| kind.starts_with("clsact")));
        let tcx = |interface: &CStr| {
            let name = interface.to_string_lossy();
            SchedClassifier::query_tcx(&name, TcAttachType::Ingress).map_or(0, |(_, programs)| programs.len())
        };
        let links: usize =
            self.netns.run(|| if_nameindex().unwrap().iter().map(|i| tcx(i.name())).sum()).unwrap();
        filters.count() + links
    }
}

pub(crate) fn sysctl(netns: &Netns, setting: &str) {
    netns.output("sysctl", &["-qw", setting]).unwrap();
}

fn mac_of(netns: &Netns, interface: &str) -> [u8; 6] {
    let links = netns.output("ip", &["-o", "link", "show", "dev", interface]).unwrap();
    let mut words = links.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
    let mac: Vec<_> = words
        .next()
        .expect("a MAC")
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC"))
        .collect();
    mac.try_into().expect("six bytes")
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Tells each node each container's instance addresses, as a table query would.
pub(crate) fn publish_instances<D: Verbs>(nodes: &mut [Node<D>], containers: &[&Container]) {
    for node in nodes {
        for container in containers {
            let backend = container.backend;
            for address in [container.instance_ip(Family::V4), container.instance_ip(Family::V6)] {
                node.within(|datapath| datapath.publish_service(address, Policy::Instance, &[backend]));
            }
        }
    }
}
