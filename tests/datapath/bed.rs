//! Single packets through the programs that netmanager embeds, by `BPF_PROG_TEST_RUN`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::{Program, ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod};
use integration::Netns;
use netmanager::app::Paths;
use netmanager::datapath::{
    Backend, Datapath, DropReason, Endpoint, Event, FROM_CONTAINER, FROM_UPLINK, Miss, OBJECT, Options,
    Policy,
};
use protocol::plan::Plan;

use crate::nodes::hook;
use crate::pins::Pins;

/// Hand the packet on to the kernel, or to the next program.
pub(crate) const PASS: i32 = 0;
pub(crate) const NEXT: i32 = -1;
pub(crate) const DROP: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;

/// The node under test is as Oakestra's in the captured packets.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const TUNNEL_PORT: u16 = 50103;
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

/// A container of the node under test.
pub(crate) const CLIENT: Endpoint = Endpoint {
    ns_ip: Ipv4Addr::new(10, 18, 1, 2),
    ns_ip6: None,
    instance_ip: Some(Ipv4Addr::new(10, 30, 11, 10)),
    instance_ip6: None,
    ifindex: LOOPBACK,
    mac: [2, 0, 0, 0, 1, 2],
    gateway_mac: [2, 0, 0, 0, 1, 1],
};

/// Another one.
pub(crate) const NEIGHBOUR: Endpoint = Endpoint {
    ns_ip: Ipv4Addr::new(10, 18, 1, 3),
    ns_ip6: None,
    instance_ip: Some(Ipv4Addr::new(10, 30, 11, 11)),
    instance_ip6: None,
    ifindex: LOOPBACK,
    mac: [2, 0, 0, 0, 1, 3],
    gateway_mac: [2, 0, 0, 0, 1, 4],
};

/// An instance on the other node.
pub(crate) const SERVER: Backend = Backend {
    ns_ip: Ipv4Addr::new(10, 18, 2, 2),
    ns_ip6: None,
    instance_ip: Ipv4Addr::new(10, 30, 12, 10),
    instance_ip6: None,
    node: SocketAddr::new(IpAddr::V4(PEER), TUNNEL_PORT),
};

/// Where the kernel pretends that a test packet arrived.
pub(crate) const LOOPBACK: u32 = 1;

/// One node's data plane, in a namespace where nothing else happens.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) datapath: Datapath,
    /// Each is loaded when it is first used: the verifier takes longer than the tests.
    programs: RwLock<Ebpf>,
    netns: Netns,
    pins: Pins,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: i32,
    pub(crate) frame: Vec<u8>,
    /// The reasons counted meanwhile, each as often as it was.
    pub(crate) dropped: Vec<DropReason>,
}

impl Bed {
    /// A data plane with empty tables.
    pub(crate) fn empty() -> Self {
        let pins = Pins::new();
        let netns = Netns::new("bed").unwrap();
        let options =
            Options { pin_dir: pins.path().to_owned(), tunnel_port: TUNNEL_PORT, plan: Plan::default() };
        let datapath = netns.run(|| Datapath::open_with(options, hook())).unwrap().unwrap();
        let tables = pins.path().join(format!("abi-{}", netmanager_common::ABI_VERSION));
        let programs = EbpfLoader::new().default_map_pin_directory(tables).load(OBJECT).unwrap();
        Self { datapath, programs: RwLock::new(programs), netns, pins }
    }

    /// A node with two containers, and one service with one instance on the other node.
    pub(crate) fn new() -> Self {
        let mut bed = Self::empty();
        bed.within(|datapath| {
            datapath.set_node(NODE, LOOPBACK)?;
            datapath.attach_endpoint(&CLIENT)?;
            datapath.attach_endpoint(&NEIGHBOUR)?;
            datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER])
        });
        bed
    }

    pub(crate) fn within<T: Send>(
        &mut self,
        work: impl FnOnce(&mut Datapath) -> Result<T, netmanager::datapath::DatapathError> + Send,
    ) -> T {
        let datapath = &mut self.datapath;
        self.netns.run(|| work(datapath)).unwrap().unwrap()
    }

    /// What the commands are given, with this state directory.
    pub(crate) fn paths(&self, state: &Path) -> Paths {
        Paths {
            socket: state.join("netmanager.sock"),
            state_dir: state.to_owned(),
            bpffs: self.pins.path().to_owned(),
        }
    }

    /// Where the tables are pinned.
    pub(crate) fn tables(&self) -> PathBuf {
        self.pins.path().join(format!("abi-{}", netmanager_common::ABI_VERSION))
    }

    /// `ip` in the node's network namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        self.netns.ip(arguments).unwrap();
    }

    /// Takes the programs away behind the data plane's back, whichever way they are attached.
    pub(crate) fn detach_all(&self) {
        if hook() == netmanager::datapath::Hook::Clsact {
            self.netns.output("tc", &["qdisc", "del", "dev", "lo", "clsact"]).unwrap();
            return;
        }
        // Without its pin a link stays, since the data plane holds it.
        for pin in std::fs::read_dir(self.pins.path().join("links")).unwrap() {
            let pin = pin.unwrap().path();
            self.netns.output("bpftool", &["link", "detach", "pinned", pin.to_str().unwrap()]).unwrap();
        }
    }

    /// Does something in the node's network namespace.
    pub(crate) fn run_in_namespace<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).unwrap()
    }

    /// A frame as a container of this node sends it.
    pub(crate) fn container_sends(&mut self, frame: &[u8]) -> Outcome {
        self.run(FROM_CONTAINER, frame)
    }

    /// A frame as it arrives at the uplink.
    pub(crate) fn uplink_receives(&mut self, frame: &[u8]) -> Outcome {
        self.run(FROM_UPLINK, frame)
    }

    /// A table, to be written behind the data plane's back.
    pub(crate) fn table<K: Pod, V: Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        let path = self.pins.path().join(format!("abi-{}", netmanager_common::ABI_VERSION)).join(name);
        Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap().try_into().unwrap()
    }

    /// A table of numbered rows, likewise.
    pub(crate) fn array<V: Pod>(&self, name: &str) -> Array<MapData, V> {
        let map = MapData::from_pin(self.tables().join(name)).unwrap();
        Map::from_map_data(map).unwrap().try_into().unwrap()
    }

    /// All programs of the object, loaded, by name.
    pub(crate) fn programs(&mut self) -> impl Iterator<Item = (String, ProgramInfo)> {
        self.programs.get_mut().unwrap().programs_mut().map(|(name, program)| {
            load(name, program);
            (name.to_owned(), program.info().expect(name))
        })
    }

    /// Loads programs that would be loaded when they are first asked, which takes an emulated kernel some seconds: for
    /// tests of what is soon over.
    pub(crate) fn load(&mut self, names: &[&str]) {
        let programs = self.programs.get_mut().unwrap();
        for name in names {
            load(name, programs.program_mut(name).expect(name));
        }
    }

    /// As [`Self::container_sends`] of many frames. Gives the verdicts only.
    pub(crate) fn container_sends_all(&self, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<i32> {
        self.run_all(FROM_CONTAINER, frames)
    }

    /// As [`Self::uplink_receives`] of many frames. Gives the verdicts only.
    pub(crate) fn uplink_receives_all(&self, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<i32> {
        self.run_all(FROM_UPLINK, frames)
    }

    /// A frame as the driver has it: the verdict of XDP, and all that is left from its metadata on.
    pub(crate) fn driver_receives(&mut self, name: &str, frame: &[u8]) -> Outcome {
        self.run(name, frame)
    }

    /// Several threads may do this at once.
    fn run_all(&self, name: &str, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<i32> {
        load(name, self.programs.write().unwrap().program_mut(name).expect(name));
        let programs = self.programs.read().unwrap();
        let program: &SchedClassifier = programs.program(name).expect(name).try_into().expect(name);
        let frames: Vec<_> = frames.into_iter().collect();
        self.netns.run(|| frames.iter().map(|frame| verdict(program, frame)).collect()).unwrap()
    }

    pub(crate) fn run(&mut self, name: &str, frame: &[u8]) -> Outcome {
        let before = self.drops();
        let mut out = vec![0; frame.len() + 256];
        let program = self.programs.get_mut().unwrap().program_mut(name).expect(name);
        load(name, program);
        let result = self
            .netns
            .run(|| {
                let options = TestRunOptions {
                    data_in: Some(frame),
                    data_out: Some(&mut out),
                    ..TestRunOptions::new()
                };
                match program {
                    Program::SchedClassifier(program) => program.test_run(options),
                    Program::Xdp(program) => program.test_run(options),
                    _ => panic!("{name} is of another kind"),
                }
            })
            .unwrap()
            .expect("the kernel runs the program");
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        let counted_before =
            |reason| before.iter().find(|(other, _)| *other == reason).map_or(0, |drop| drop.1);
        let dropped = self.drops().into_iter().flat_map(|(reason, count)| {
            let times = usize::try_from(count - counted_before(reason)).unwrap();
            std::iter::repeat_n(reason, times)
        });
        Outcome { verdict: result.return_value.cast_signed(), frame: out, dropped: dropped.collect() }
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.datapath.counters().unwrap().drops
    }

    /// The misses reported so far and not read yet.
    pub(crate) fn misses(&mut self) -> Vec<Miss> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut events = self.datapath.events().unwrap();
            let mut seen = Vec::new();
            while let Ok(event) = tokio::time::timeout(Duration::from_millis(20), events.next()).await {
                seen.extend(match event.unwrap() {
                    Event::Miss(miss) => Some(miss),
                    Event::Suspect(_) => None,
                });
            }
            seen
        })
    }
}

impl Outcome {
    /// The packet was dropped, unchanged, and counted once.
    #[track_caller]
    pub(crate) fn assert_dropped(&self, reason: DropReason) {
        assert_eq!((self.verdict, self.dropped.as_slice()), (DROP, [reason].as_slice()));
    }

    /// The packet goes elsewhere as it is.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, verdict: i32, frame: &[u8]) {
        assert_eq!((self.verdict, self.dropped.as_slice()), (verdict, [].as_slice()));
        assert_eq!(self.frame, frame);
    }

    /// The packet goes on, changed.
    #[track_caller]
    pub(crate) fn redirected(&self) -> &[u8] {
        assert_eq!((self.verdict, self.dropped.as_slice()), (REDIRECT, [].as_slice()));
        &self.frame
    }
}

/// Unless it is.
fn load(name: &str, program: &mut Program) {
    match program {
        _ if program.fd().is_ok() => {}
        Program::SchedClassifier(program) => program.load().expect(name),
        Program::Xdp(program) => program.load().expect(name),
        _ => panic!("{name} is of another kind"),
    }
}

fn verdict(program: &SchedClassifier, frame: &[u8]) -> i32 {
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
    program.test_run(options).expect("the kernel runs the program").return_value.cast_signed()
}
