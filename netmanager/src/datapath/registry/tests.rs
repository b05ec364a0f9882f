use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The tables as the steps make them, with the checks that a packet relies on after every single step.
#[derive(Debug, Default, Clone, PartialEq)]
struct Kernel {
    peers: BTreeSet<SocketAddr>,
    rows: BTreeMap<u16, (u32, Backend)>,
    aside: BTreeSet<u16>,
    hosts: BTreeMap<IpAddr, u16>,
    services: BTreeMap<IpAddr, Vec<u16>>,
}

impl Kernel {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::AddPeer(node) => drop(self.peers.insert(*node)),
            Step::RemovePeer(address) => drop(self.peers.remove(address)),
            Step::ClearHealth(number) => assert!(self.in_use(*number).is_none(), "{number} is noted of"),
            Step::SetBackend { number, generation, backend, aside } => {
                let before = self.rows.insert(*number, (*generation, *backend));
                let (old, same) = before.map_or((0, true), |(old, was)| (old, is_same(&was, backend)));
                let marks = before.is_some() && old == *generation && same;
                assert!(marks || *generation == old.wrapping_add(1), "generations count up");
                assert!(same || old % 2 == 0, "a number in use changes its meaning");
                if *aside {
                    self.aside.insert(*number)
                } else {
                    self.aside.remove(number)
                };
                assert!(!aside || generation % 2 == 1, "nobody is set aside who is not in use");
            }
            Step::SetHost { address, number } => drop(self.hosts.insert(*address, *number)),
            Step::RemoveHost(address) => drop(self.hosts.remove(address)),
            Step::SetService { service_ip, numbers, resting, .. } => {
                let all = [numbers.clone(), resting.clone()].concat();
                assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each once");
                drop(self.services.insert(*service_ip, all));
            }
            Step::RemoveService(service_ip) => assert!(self.services.remove(service_ip).is_some()),
        }
        self.check();
    }

    fn check(&self) {
        for (service_ip, numbers) in &self.services {
            for number in numbers {
                assert!(self.in_use(*number).is_some(), "{service_ip} names {number}, which is not in use");
            }
        }
        for (address, number) in &self.hosts {
            let backend = self.in_use(*number).expect("an address leads to a backend in use");
            assert!(addresses(&backend).any(|own| own == *address));
        }
        for backend in self.rows.keys().filter_map(|number| self.in_use(*number)) {
            for port in [backend.node.port(), 0] {
                let peer = SocketAddr::new(backend.node.ip(), port);
                assert!(self.peers.contains(&peer), "{peer} is not known");
            }
        }
    }

    fn in_use(&self, number: u16) -> Option<Backend> {
        self.rows.get(&number).filter(|(generation, _)| generation % 2 == 1).map(|(_, backend)| *backend)
    }

    /// The registry of a process that starts with these tables.
    fn read(&self) -> (Registry, Vec<Step>) {
        let held = Held {
            rows: self
                .rows
                .iter()
                .map(|(&number, &(generation, backend))| {
                    let aside = self.aside.contains(&number);
                    Row { number, generation, backend, aside }
                })
                .collect(),
            services: self.services.clone().into_iter().collect(),
            hosts: self.hosts.clone().into_iter().collect(),
            peers: self.peers.iter().copied().collect(),
        };
        Registry::rebuild(&held)
    }
}

/// Whether they are one container, wherever its node is.
fn is_same(one: &Backend, other: &Backend) -> bool {
    Backend { node: other.node, ..*one } == *other
}

fn backend(seed: u8) -> Backend {
    // Few enough that services share backends, and that two backends share an address.
    let host = seed % 7;
    let node = match seed % 3 {
        0 => Ipv6Addr::LOCALHOST.into(),
        n => Ipv4Addr::new(192, 0, 2, n).into(),
    };
    Backend {
        ns_ip: Ipv4Addr::new(10, 18, 0, host),
        ns_ip6: (seed % 4 > 1).then(|| Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, host.into())),
        instance_ip: Ipv4Addr::new(10, 30, 1, seed % 5),
        instance_ip6: (seed % 4 < 3).then(|| Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, (seed % 5).into())),
        node: SocketAddr::new(node, 50103 + u16::from(seed % 2)),
    }
}

#[derive(Debug, Clone)]
enum Operation {
    /// With as many of them, or all, that get new flows.
    Publish(u8, Vec<u8>, usize),
    SetAside(u8, bool),
    Withdraw(u8),
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0u8..4, prop::collection::vec(any::<u8>(), 0..6), 0usize..6)
            .prop_map(|(s, b, live)| Operation::Publish(s, b, live)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(seed, aside)| Operation::SetAside(seed, aside)),
        2 => (0u8..4).prop_map(Operation::Withdraw),
        1 => Just(Operation::Restart),
    ]
}

fn service_ip(number: u8) -> IpAddr {
    match number % 2 {
        0 => Ipv4Addr::new(10, 30, 0, number).into(),
        _ => Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn behind(service: u8, backends: &[Backend]) -> Service {
    Service {
        service_ip: service_ip(service),
        policy: Policy::RoundRobin,
        backends: backends.to_vec(),
        resting: Vec::new(),
    }
}

#[test]
fn one_that_rests_keeps_its_number_and_generation() {
    let mut registry = Registry::default();
    registry.publish(&behind(0, &[backend(0), backend(1)])).unwrap();
    let before = registry.number(&backend(1));
    let service = Service { resting: vec![backend(1)], ..behind(0, &[backend(0)]) };
    let steps = registry.publish(&service).unwrap();
    let [Step::SetService { numbers, resting, .. }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((numbers.len(), resting.len()), (1, 1));
    assert_eq!(registry.number(&backend(1)), before);
}

proptest! {
    #[test]
    fn no_step_leaves_an_entry_that_leads_nowhere(operations in prop::collection::vec(operation(), 1..40)) {
        let mut kernel = Kernel::default();
        let mut registry = Registry::default();
        let mut wanted: BTreeMap<IpAddr, BTreeSet<Backend>> = BTreeMap::new();
        for operation in operations {
            let steps = match operation {
                Operation::Publish(service, seeds, live) => {
                    let mut backends: Vec<_> = seeds.into_iter().map(backend).collect();
                    wanted.insert(service_ip(service), backends.iter().copied().collect());
                    // Where a container was said to be last, it is for all.
                    for backend in &backends {
                        for others in wanted.values_mut() {
                            let moved = |it: &Backend| if is_same(it, backend) { *backend } else { *it };
                            *others = others.iter().map(moved).collect();
                        }
                    }
                    let resting = backends.split_off(live.min(backends.len()));
                    let published = Service { resting, ..behind(service, &backends) };
                    registry.publish(&published).expect("numbers")
                }
                Operation::SetAside(seed, aside) => {
                    let known = registry.number(&backend(seed)).is_some();
                    let steps: Vec<_> = registry.set_aside(&backend(seed), aside).into_iter().collect();
                    prop_assert_eq!(registry.aside().any(|it| it == backend(seed)), known && aside);
                    steps
                }
                Operation::Withdraw(service) => {
                    wanted.remove(&service_ip(service));
                    registry.withdraw(service_ip(service))
                }
                Operation::Restart => {
                    let (read, steps) = kernel.read();
                    registry = read;
                    prop_assert!(steps.is_empty(), "nothing was left half done: {steps:?}");
                    steps
                }
            };
            for step in &steps {
                kernel.apply(step);
            }
            let held: BTreeMap<_, BTreeSet<_>> = kernel
                .services
                .iter()
                .map(|(&ip, numbers)| (ip, numbers.iter().filter_map(|n| kernel.in_use(*n)).collect()))
                .collect();
            prop_assert_eq!(&held, &wanted);
        }
        for service in 0..4 {
            for step in registry.withdraw(service_ip(service)) {
                kernel.apply(&step);
            }
        }
        prop_assert!(kernel.peers.is_empty() && kernel.hosts.is_empty() && kernel.services.is_empty());
    }

    #[test]
    fn a_writer_that_dies_between_two_steps_is_cleaned_up_after(
        first in prop::collection::vec(any::<u8>(), 0..6),
        second in prop::collection::vec(any::<u8>(), 0..6),
        died_after in 0usize..40,
    ) {
        let mut kernel = Kernel::default();
        let mut registry = Registry::default();
        let publish = |registry: &mut Registry, seeds: &[u8]| {
            let backends: Vec<_> = seeds.iter().copied().map(backend).collect();
            registry.publish(&behind(0, &backends)).expect("numbers")
        };
        for step in publish(&mut registry, &first) {
            kernel.apply(&step);
        }
        for step in publish(&mut registry, &second).iter().take(died_after) {
            kernel.apply(step);
        }
        let (mut registry, steps) = kernel.read();
        for step in steps {
            kernel.apply(&step);
        }
        for step in publish(&mut registry, &second) {
            kernel.apply(&step);
        }
        for step in registry.withdraw(service_ip(0)) {
            kernel.apply(&step);
        }
        prop_assert!(kernel.peers.is_empty() && kernel.hosts.is_empty() && kernel.services.is_empty());
    }
}

#[test]
fn a_backend_that_stays_keeps_its_number_and_generation() {
    let mut registry = Registry::default();
    let (stays, goes, comes) = (backend(0), backend(1), backend(2));
    registry.publish(&behind(0, &[stays, goes])).unwrap();
    let steps = registry.publish(&behind(0, &[stays, comes])).unwrap();
    let touched: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::SetBackend { backend, .. } => Some(*backend),
            _ => None,
        })
        .collect();
    assert_eq!(touched, [comes, goes]);
}

#[test]
fn a_backend_whose_node_moves_keeps_its_number_and_generation() {
    let mut registry = Registry::default();
    let (mut kernel, before) = (Kernel::default(), backend(0));
    let after = Backend { node: "198.51.100.9:50104".parse().unwrap(), ..before };
    let services = [behind(0, &[before]), behind(2, &[before])];
    for step in services.iter().flat_map(|service| registry.publish(service).unwrap()) {
        kernel.apply(&step);
    }
    let number = registry.number(&before);
    registry.set_aside(&before, true).unwrap();
    let steps = registry.publish(&behind(0, &[after])).unwrap();
    steps.iter().for_each(|step| kernel.apply(step));
    assert_eq!((registry.number(&after), registry.number(&before)), (number, None));
    assert_eq!(kernel.peers.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>(), [after.node.ip()].into());
    // The other service has it where it is by now; its own answer changes nothing more.
    let steps = registry.publish(&behind(2, &[after])).unwrap();
    assert!(matches!(&steps[..], [Step::SetService { .. }]), "{steps:?}");
}

#[test]
fn numbers_run_out_with_an_error_and_are_reused_with_a_new_generation() {
    let mut registry = Registry { unused: MAX_BACKENDS, ..Registry::default() };
    assert_eq!(registry.publish(&behind(0, &[backend(0)])), Err(OutOfNumbers));
    registry.retired.push_back((7, 4));
    let steps = registry.publish(&behind(0, &[backend(0)])).unwrap();
    assert!(
        steps.contains(&Step::SetBackend { number: 7, generation: 5, backend: backend(0), aside: false }),
        "{steps:?}"
    );
}
