//! The list of parts, and who needs which.

use super::cargo::{CARGO_DENY, has_component};
use super::compiler;
use super::part::Found::{Program, When};
use super::part::{Part, Source, is_static};
use crate::process::{self, Process};
use crate::vm;

/// What is about to be done on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Building the BPF object
    Object,
    /// Building the daemons
    Daemons,
    /// Running the tests that need no rights
    Unit,
    /// Checking the code
    Check,
    /// Running nodes: demo and lab
    Lab,
    /// Measuring the overlay
    Bench,
    /// Running the tests that need rights
    Tests,
    /// Running the tests on another kernel, in a virtual machine
    Vm,
    /// All of it but the virtual machine
    Everything,
}

impl Purpose {
    /// Whether programs and maps get loaded, containers run.
    pub(crate) fn runs_programs(self) -> bool {
        matches!(self, Self::Lab | Self::Bench | Self::Tests | Self::Everything)
    }
}

pub(crate) fn needed_for(purpose: Purpose) -> Vec<Part> {
    let groups: &[&[Part]] = match purpose {
        Purpose::Object => &[&OBJECT],
        Purpose::Daemons => &[&OBJECT, &DAEMONS],
        Purpose::Unit => &[&OBJECT, &DAEMONS, &UNIT, &BROKER],
        Purpose::Check => &[&OBJECT, &DAEMONS, &CHECK],
        Purpose::Lab => &[&OBJECT, &DAEMONS, &LAB],
        Purpose::Bench => &[&OBJECT, &DAEMONS, &LAB, &BENCH],
        Purpose::Tests => &[&OBJECT, &DAEMONS, &LAB, &BROKER, &TESTS],
        Purpose::Vm => &[&OBJECT, &DAEMONS, &LAB, &BROKER, &TESTS, &VM],
        Purpose::Everything => &[&OBJECT, &DAEMONS, &UNIT, &CHECK, &LAB, &BROKER, &TESTS],
    };
    groups.concat()
}

const OBJECT: [Part; 3] = [
    Part {
        name: "C compiler",
        why: "links every Rust program, compiles SQLite",
        found: Program("cc"),
        source: Source::Apt(&["gcc", "libc6-dev"]),
    },
    Part {
        name: "BPF compiler",
        why: "Rust for the kernel side, with core for its target",
        found: When(compiler::is_there),
        source: Source::Compiler,
    },
    Part {
        name: "bpf-linker",
        why: "makes one BPF object with type information",
        found: When(compiler::linker_is_there),
        source: Source::Linker,
    },
];

const DAEMONS: [Part; 1] = [Part {
    name: "protoc",
    why: "code for the gRPC of containerd and between root and cluster",
    found: Program("protoc"),
    source: Source::Apt(&["protobuf-compiler", "libprotobuf-dev"]),
}];

const UNIT: [Part; 2] = [
    program("etcd", "keeps the state where there are several roots", &["etcd-server"]),
    program("faketime", "sets the clock of daemons under test", &["faketime"]),
];

const BROKER: [Part; 1] =
    [program("mosquitto", "a broker that is not ours: Oakestra's, and one for our clusters", &["mosquitto"])];

const CHECK: [Part; 3] = [
    Part {
        name: "rustfmt",
        why: "one layout of the code",
        found: When(|| has_component("fmt")),
        source: Source::Rustup("rustfmt"),
    },
    Part {
        name: "clippy",
        why: "lints",
        found: When(|| has_component("clippy")),
        source: Source::Rustup("clippy"),
    },
    Part {
        name: "cargo-deny",
        why: "licences and sources of all dependencies",
        found: When(|| CARGO_DENY.find().is_some()),
        source: Source::Cargo(&CARGO_DENY),
    },
];

const LAB: [Part; 9] = [
    program("containerd", "runs the containers; each node starts its own", &["containerd"]),
    program("runc", "starts a container for containerd", &["runc"]),
    program("nft", "translates the addresses of traffic to the outside", &["nftables"]),
    program("ip", "an independent view of links, routes and namespaces", &["iproute2"]),
    program("ping", "ICMP echo through the overlay", &["iputils-ping"]),
    program("sysctl", "forwarding in the network that is compared with", &["procps"]),
    program("iperf3", "measures throughput", &["iperf3"]),
    program("tcpdump", "what is really on the wire", &["tcpdump"]),
    Part {
        name: "busybox, static",
        why: "web server and client in the images of the demo",
        found: When(|| process::find("busybox").is_some_and(|path| is_static(&path))),
        source: Source::Apt(&["busybox-static"]),
    },
];

const BENCH: [Part; 1] = [ETHTOOL];

const ETHTOOL: Part = program("ethtool", "links with and without offloads", &["ethtool"]);

const TESTS: [Part; 4] = [
    ETHTOOL,
    program("bpftool", "an independent view of what is attached", &["bpftool"]),
    program("docker-registry", "a registry to pull images from, with no internet", &["docker-registry"]),
    Part {
        name: "python3 with venv",
        why: "runs Oakestra's own client, and Schemathesis, against the root",
        found: When(|| Process::new("python3").args(["-c", "import ensurepip, venv"]).succeeds()),
        source: Source::Apt(&["python3-venv"]),
    },
];

const VM: [Part; 2] = [
    program(vm::QEMU, "emulates the machine", &["qemu-system-x86"]),
    Part {
        name: "another kernel",
        why: "the oldest that Debian still has, where the tests run as well",
        found: When(|| vm::kernel::find().is_some()),
        source: Source::Kernel,
    },
];

const fn program(name: &'static str, why: &'static str, packages: &'static [&'static str]) -> Part {
    Part { name, why, found: Program(name), source: Source::Apt(packages) }
}
