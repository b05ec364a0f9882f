//! Hypha's data plane without BPF: threads of this process, whose sockets are in the nodes' namespaces.

use anyhow::{Context, Result};
use integration::Netns;
use netmanager::datapath::{Addresses, Policy, Service};
use netmanager::net::sysctl;

pub(crate) use netmanager::userspace::Datapath;
use nix::net::if_::if_nametoindex;
use protocol::plan::Plan;

use super::hypha::{CLIENT, SERVER, SERVICE, connect, instance};
use super::pair::UPLINK;
use super::{Bed, Overlay, Pair};
use crate::subject::Underlay;

pub(super) fn build(pair: Pair, underlay: Underlay) -> Result<Bed> {
    let servers_node = if underlay == Underlay::SameNode { 0 } else { 1 };
    let mut datapaths = [open(&pair, 0)?, open(&pair, 1)?];
    let (client, server) = (Netns::new("client")?, Netns::new("server")?);
    let mut ends = Vec::new();
    for (container, node, number) in [(&client, 0, CLIENT), (&server, servers_node, SERVER)] {
        let (namespace, datapath) = (&pair.nodes[node], &mut datapaths[node]);
        let mtu = datapath.control().node().context("the node is set up")?.inner_mtu;
        let end = connect(namespace, container, node, number, mtu)?;
        namespace.run(|| datapath.attach_endpoint(&end))?.context("attach a container")?;
        ends.push(instance(&pair, &end, node));
    }
    let service = |service_ip: std::net::Ipv4Addr, policy, backend| Service {
        service_ip: service_ip.into(),
        policy,
        backends: vec![backend],
        resting: Vec::new(),
    };
    for (node, datapath) in pair.nodes.iter().zip(&mut datapaths) {
        let instances = ends.iter().map(|end| service(end.instance_ip, Policy::Instance, *end));
        for service in instances.chain([service(SERVICE, Policy::RoundRobin, ends[1])]) {
            node.run(|| datapath.publish(&service))?.context("publish a service")?;
        }
    }
    Ok(Bed {
        target: SERVICE,
        overlay: Overlay::Userspace { datapaths: Box::new(datapaths) },
        client,
        server,
        pair,
    })
}

fn open(pair: &Pair, index: usize) -> Result<Datapath> {
    let node = &pair.nodes[index];
    let address = Addresses::from(pair.address(index));
    node.run(|| {
        sysctl::enable_forwarding().context("enable forwarding")?;
        // Its misses are of no interest: everything is known.
        let (mut datapath, _misses) =
            Datapath::open(protocol::port::TUNNEL, Plan::default()).context("open the data plane")?;
        let ifindex = if_nametoindex(UPLINK).context("find the uplink")?;
        datapath.set_node(address, ifindex).context("set the node")?;
        Ok(datapath)
    })?
}
