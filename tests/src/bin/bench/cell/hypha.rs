//! Hypha's data plane, attached by netmanager's own code.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use integration::Netns;
use integration::lab::pins;
use netmanager::datapath::{
    Backend, Datapath, DatapathError, Decapsulation, Endpoint, Link, Options, Place, Policy,
};
use netmanager::net::{self, Links, Wiring, sysctl};
use nix::net::if_::if_nametoindex;
use protocol::name::InstanceName;
use protocol::plan::Plan;

use super::pair::UPLINK;
use super::{Bed, Overlay, Pair};
use crate::subject::Underlay;

/// What the client dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dial {
    NsIp,
    ServiceIp,
}

/// The last numbers of the containers' addresses.
pub(super) const CLIENT: u8 = 2;
pub(super) const SERVER: u8 = 66;

/// The service of the server.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

/// The data planes of both nodes.
#[derive(Debug)]
pub(crate) struct Hypha {
    pub(super) datapaths: [Pinned; 2],
    /// The server as an instance.
    pub(super) backend: Backend,
    server: Endpoint,
}

impl Hypha {
    /// Another address of the server, on the link that it has. Its node must be the second.
    pub(super) fn add_instance(&mut self, node: &Netns, server: &Netns, number: u8) -> Result<Backend> {
        let ns_ip = Ipv4Addr::new(10, 18, 1, 66 + number);
        let instance_ip = Ipv4Addr::new(10, 30, 110, number);
        server.ip(&format!("addr add {ns_ip}/32 dev eth0"))?;
        let endpoint = Endpoint { ns_ip, instance_ip: Some(instance_ip), ..self.server };
        self.datapaths[1].within(node, |datapath| datapath.attach_endpoint(&endpoint))?;
        Ok(Backend { ns_ip, instance_ip, ..self.backend })
    }
}

/// A data plane and where it is pinned; taken away when it is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    datapath: Datapath,
    folder: PathBuf,
}

impl Pinned {
    fn open(node: &Netns) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = pins().join(format!("bench-{number}"));
        std::fs::create_dir_all(pins()).with_context(|| format!("make {}", pins().display()))?;
        let options =
            Options { pin_dir: folder.clone(), tunnel_port: protocol::port::TUNNEL, plan: Plan::default() };
        let datapath = node.run(|| Datapath::open(options))?.context("load the data plane")?;
        Ok(Self { datapath, folder })
    }

    /// Acts on the data plane inside of its node's namespace.
    pub(super) fn within<T: Send>(
        &mut self,
        node: &Netns,
        work: impl FnOnce(&mut Datapath) -> Result<T, DatapathError> + Send,
    ) -> Result<T> {
        let datapath = &mut self.datapath;
        node.run(|| work(datapath))?.context("change the data plane")
    }

    pub(super) fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What it leaves, the next run removes with the folder above.
        Datapath::remove_all(&self.folder).ok();
        std::fs::remove_dir(pins()).ok();
    }
}

pub(super) fn build(pair: Pair, underlay: Underlay, dial: Dial) -> Result<Bed> {
    let servers_node = if underlay == Underlay::SameNode { 0 } else { 1 };
    let mut datapaths = [Pinned::open(&pair.nodes[0])?, Pinned::open(&pair.nodes[1])?];
    for (index, datapath) in datapaths.iter_mut().enumerate() {
        let node = &pair.nodes[index];
        let ifindex = node.run(|| if_nametoindex(UPLINK))?.context("find the uplink")?;
        let address = pair.address(index);
        datapath.within(node, |datapath| datapath.set_node(address, ifindex))?;
        node.run(sysctl::enable_forwarding)?.context("enable forwarding")?;
    }
    let (client, server) = (Netns::new("client")?, Netns::new("server")?);
    let client_end = attach(&pair.nodes[0], &mut datapaths[0], &client, 0, CLIENT)?;
    let server_end =
        attach(&pair.nodes[servers_node], &mut datapaths[servers_node], &server, servers_node, SERVER)?;
    let client_instance = instance(&pair, &client_end, 0);
    let backend = instance(&pair, &server_end, servers_node);
    for (index, datapath) in datapaths.iter_mut().enumerate() {
        datapath.within(&pair.nodes[index], |datapath| {
            datapath.publish_service(SERVICE, Policy::RoundRobin, &[backend])?;
            datapath.publish_service(backend.instance_ip, Policy::Instance, &[backend])?;
            datapath.publish_service(client_instance.instance_ip, Policy::Instance, &[client_instance])
        })?;
    }
    let target = match dial {
        Dial::NsIp => backend.ns_ip,
        Dial::ServiceIp => SERVICE,
    };
    let overlay = Overlay::Hypha(Box::new(Hypha { datapaths, backend, server: server_end }));
    Ok(Bed { target, overlay, client, server, pair })
}

/// As [`build`], with the link that the kernel merges packets of, both ways.
pub(super) fn build_with_vx(pair: Pair) -> Result<Bed> {
    let mut bed = build(pair, Underlay::Superpacket, Dial::ServiceIp)?;
    let Overlay::Hypha(hypha) = &mut bed.overlay else { bail!("Hypha was built") };
    for (own, other) in [(0, 1), (1, 0)] {
        let (node, peer) = (&bed.pair.nodes[own], bed.pair.address(other).into());
        hypha.datapaths[own].within(node, |datapath| datapath.set_link(peer, Link::Vx))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        node.run(|| runtime.block_on(async { Links::open()?.merge_on(protocol::port::TUNNEL).await }))??;
    }
    Ok(bed)
}

/// As [`build`], with the outer headers taken off in the driver on both nodes.
pub(super) fn build_with_xdp(pair: Pair) -> Result<Bed> {
    let mut bed = build(pair, Underlay::Wire, Dial::ServiceIp)?;
    let Overlay::Hypha(hypha) = &mut bed.overlay else { bail!("Hypha was built") };
    for (node, datapath) in bed.pair.nodes.iter().zip(&mut hypha.datapaths) {
        let placements = datapath.within(node, |datapath| datapath.decapsulate(Decapsulation::Xdp))?;
        if let Some(placement) = placements.iter().find(|placement| placement.place != Place::Xdp) {
            bail!("{} is not unwrapped in the driver: {}", placement.interface, placement.why);
        }
    }
    Ok(bed)
}

/// An end as an instance on a node.
pub(super) fn instance(pair: &Pair, end: &Endpoint, node: usize) -> Backend {
    Backend {
        ns_ip: end.ns_ip,
        ns_ip6: None,
        instance_ip: end.instance_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
        instance_ip6: None,
        node: SocketAddr::new(pair.address(node).into(), protocol::port::TUNNEL),
    }
}

/// Connects and attaches a container as netmanager does.
fn attach(
    node: &Netns,
    datapath: &mut Pinned,
    container: &Netns,
    block: usize,
    host: u8,
) -> Result<Endpoint> {
    let mtu =
        datapath.within(node, |datapath| datapath.tables().node())?.context("the node is set up")?.inner_mtu;
    let endpoint = connect(node, container, block, host, mtu)?;
    datapath.within(node, |datapath| datapath.attach_endpoint(&endpoint))?;
    Ok(endpoint)
}

/// Connects a container as netmanager does.
pub(super) fn connect(node: &Netns, container: &Netns, block: usize, host: u8, mtu: u16) -> Result<Endpoint> {
    let block = if block == 0 { 0 } else { 1 };
    let ns_ip = Ipv4Addr::new(10, 18, block, host);
    let instance =
        InstanceName { service: "bench.bench.server.bench".parse().context("a name")?, number: host.into() };
    let wiring = Wiring::new(&instance, ns_ip, Ipv4Addr::new(10, 18, block, 1), None, mtu);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let path = container.path();
    let connected = node
        .run(|| runtime.block_on(async { Links::open()?.connect(&wiring, &net::Netns::at(path)?).await }))?
        .context("connect a container")?;
    Ok(Endpoint {
        ns_ip,
        ns_ip6: None,
        instance_ip: Some(Ipv4Addr::new(10, 30, 100 + block, host)),
        instance_ip6: None,
        ifindex: connected.ifindex,
        mac: wiring.mac,
        gateway_mac: wiring.gateway_mac,
    })
}
