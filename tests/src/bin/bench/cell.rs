//! One variant on one underlay, built for itself: four network namespaces that nothing else shares.

mod auto;
mod boringtun;
mod extra;
mod hypha;
mod nebula;
mod pair;
mod plain;
mod resolving;
mod running;
mod tunnel;
mod userspace;
mod vxlan;
mod xdp_pass;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use integration::Netns;
use netmanager::bench::{PORT, Peer, Server};
use netmanager::datapath::{Backend, Datapath, DatapathError};

use crate::arguments::Extra;
use crate::subject::{Underlay, Variant};

pub(crate) use hypha::{Hypha, SERVICE};
pub(crate) use pair::Pair;
pub(crate) use running::{Running, find};

/// Two containers that reach each other, and a server in the second.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) variant: Variant,
    pub(crate) underlay: Underlay,
    // In the order of their end.
    _server: Server,
    pub(crate) bed: Bed,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Bed {
    /// What the client dials.
    target: Ipv4Addr,
    /// What runs on the nodes; ends before they do.
    overlay: Overlay,
    client: Netns,
    server: Netns,
    pub(crate) pair: Pair,
}

/// What connects the containers, as far as it is more than links and routes.
#[derive(Debug)]
pub(crate) enum Overlay {
    Kernel,
    Programs {
        #[expect(dead_code, reason = "end with it")]
        programs: Vec<Running>,
        _folder: tempfile::TempDir,
    },
    Xdp {
        _attached: [xdp_pass::Attached; 2],
    },
    Hypha(Box<Hypha>),
    Netmanagers {
        #[expect(dead_code, reason = "end with it")]
        netmanagers: Box<auto::Netmanagers>,
    },
    Userspace {
        #[expect(dead_code, reason = "end with it")]
        datapaths: Box<[userspace::Datapath; 2]>,
    },
}

/// The CPUs of the two ends of a latency measurement, if there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) client: Option<usize>,
    pub(crate) server: Option<usize>,
}

impl Places {
    /// The first and the last CPU that this process may use.
    pub(crate) fn choose() -> Self {
        let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok();
        let cpus: Vec<usize> = (0..nix::sched::CpuSet::count())
            .filter(|cpu| allowed.is_some_and(|allowed| allowed.is_set(*cpu).unwrap_or(false)))
            .collect();
        Self { client: cpus.first().copied(), server: cpus.last().copied() }
    }
}

impl Cell {
    /// Builds it and waits until the two ends talk.
    pub(crate) fn build(
        variant: &Variant,
        underlay: Underlay,
        places: Places,
        extras: &[Extra],
    ) -> Result<Self> {
        let pair = Pair::new(underlay)?;
        let bed = match variant {
            Variant::Plain => plain::build(pair, underlay),
            Variant::PlainXdp => plain::build_with_xdp(pair, underlay),
            Variant::Vxlan => vxlan::build(pair),
            Variant::Geneve => tunnel::build(pair, underlay, tunnel::Kind::Geneve),
            Variant::Ipip => tunnel::build(pair, underlay, tunnel::Kind::Ipip),
            Variant::NsIp => hypha::build(pair, underlay, hypha::Dial::NsIp),
            Variant::ServiceIp => hypha::build(pair, underlay, hypha::Dial::ServiceIp),
            Variant::Vx => hypha::build_with_vx(pair),
            Variant::Early => hypha::build_with_xdp(pair),
            Variant::Auto => auto::build(pair),
            Variant::Userspace => userspace::build(pair, underlay),
            Variant::Nebula => nebula::build(pair, underlay),
            Variant::Boringtun => boringtun::build(pair, underlay),
            Variant::Extra(name) => match extras.iter().find(|extra| extra.variant == *variant) {
                Some(extra) => extra::build(pair, underlay, &extra.script),
                None => bail!("no --extra {name}=SCRIPT was given"),
            },
        }
        .with_context(|| format!("build {variant} on {}", underlay.id()))?;
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let server = bed.server.run(|| Server::start(listen, places.server))?.context("start a server")?;
        let cell = Self { variant: variant.clone(), underlay, _server: server, bed };
        cell.wait_until_connected()?;
        Ok(cell)
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer(SocketAddr::new(IpAddr::V4(self.bed.target), PORT))
    }

    /// Where the client is.
    pub(crate) fn client_netns(&self) -> &Netns {
        &self.bed.client
    }

    pub(crate) fn server_netns(&self) -> &Netns {
        &self.bed.server
    }

    /// Runs a measure where the client is.
    pub(crate) fn client<T: Send>(&self, work: impl FnOnce(Peer) -> T + Send) -> Result<T> {
        let peer = self.peer();
        self.bed.client.run(|| work(peer))
    }

    /// The server as an instance of Hypha.
    pub(crate) fn backend(&self) -> Result<Backend> {
        Ok(self.hypha()?.backend)
    }

    /// Where the client's node has its data plane pinned.
    pub(crate) fn pins(&self) -> Result<&Path> {
        Ok(self.hypha()?.datapaths[0].folder())
    }

    /// Acts on the data plane of a node of Hypha.
    pub(crate) fn change_node<T: Send>(
        &mut self,
        node: usize,
        work: impl FnOnce(&mut Datapath) -> Result<T, DatapathError> + Send,
    ) -> Result<T> {
        let Overlay::Hypha(hypha) = &mut self.bed.overlay else { bail!("{} is not Hypha", self.variant) };
        hypha.datapaths[node].within(&self.bed.pair.nodes[node], work)
    }

    /// Gives the server one more address, as if it were another instance.
    pub(crate) fn add_instance(&mut self, number: u8) -> Result<Backend> {
        let Overlay::Hypha(hypha) = &mut self.bed.overlay else { bail!("{} is not Hypha", self.variant) };
        hypha.add_instance(&self.bed.pair.nodes[1], &self.bed.server, number)
    }

    /// Runs `work` with the client's namespace, while the client's node answers for services that it does not know.
    pub(crate) fn resolving<T: Send>(
        &mut self,
        known: impl Fn(IpAddr) -> Vec<Backend> + Send,
        work: impl FnOnce(&Netns) -> Result<T>,
    ) -> Result<T> {
        let Overlay::Hypha(hypha) = &mut self.bed.overlay else { bail!("{} is not Hypha", self.variant) };
        let (node, client) = (&self.bed.pair.nodes[0], &self.bed.client);
        resolving::while_resolving(node, hypha.datapaths[0].datapath(), known, || work(client))
    }

    fn hypha(&self) -> Result<&Hypha> {
        match &self.bed.overlay {
            Overlay::Hypha(hypha) => Ok(hypha),
            _ => bail!("{} is not Hypha", self.variant),
        }
    }

    fn wait_until_connected(&self) -> Result<()> {
        let what = format!("{} on {} to connect the containers", self.variant, self.underlay.id());
        integration::eventually(std::time::Duration::from_secs(10), &what, || {
            self.client(|peer| peer.state())
                .map_err(|error| format!("{error:#}"))?
                .map_err(|error| error.to_string())
        })
        .map(drop)
    }
}
