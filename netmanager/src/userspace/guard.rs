//! The rules beside the data plane: what a packet socket sees, the host's stack sees too. So nftables drops there what
//! is the overlay's, and keeps containers from what the program at their veth would keep them from: speaking for others,
//! reaching the tunnel of a node, being a router or a DHCP server. What the node's own processes send to services it has
//! to forget, too, and what they get it has to take, for their addresses are its own. What comes to an uplink with the address of a
//! container must come through the tunnel, and what comes to the tunnel must come through an uplink.
//!
//! The whole table is written in one transaction each time. A link of ours that is not in it may send nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use crate::datapath::{Addresses, Endpoint, Ranges, gateway_of};
use crate::net::{LINK_PREFIX, OWN_LINK, OWN_LINK_PEER};

/// The table's name; its family is `inet`.
pub const TABLE: &str = "hypha-guard";

/// What the table is made of.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) containers: &'a [Endpoint],
    pub(super) node_itself: Option<&'a Endpoint>,
    /// Where packets of other nodes may come in.
    pub(super) uplinks: &'a [u32],
    /// Of this node's end of the tunnel.
    pub(super) addresses: Addresses,
    pub(super) tunnel_port: u16,
    /// Which addresses are the overlay's.
    pub(super) ranges: Ranges,
    /// Tunnels of other nodes at other ports.
    pub(super) others: &'a BTreeSet<SocketAddr>,
}

impl Rules<'_> {
    /// Writes the table, in the network namespace of the calling thread.
    pub(super) fn apply(&self) -> io::Result<()> {
        nft(&self.text())
    }
}

/// Removes the table. Says whether there was one; without `nft` there is none.
///
/// # Errors
/// When nft refuses.
pub fn remove() -> io::Result<bool> {
    match nft(&format!("delete table inet {TABLE}\n")) {
        Ok(()) => Ok(true),
        Err(error) if error.to_string().contains("No such file or directory") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the table is there.
pub(super) fn is_there() -> io::Result<bool> {
    let mut list = Command::new("nft");
    list.args(["list", "chain", "inet", TABLE, "prerouting"]);
    let status = list.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.success())
}

impl Rules<'_> {
    fn text(&self) -> String {
        let Self { containers: endpoints, node_itself, uplinks, tunnel_port, others, .. } = *self;
        let (mut senders, mut senders6) = (Vec::new(), Vec::new());
        let (mut gateways, mut gateways6) = (BTreeSet::new(), BTreeSet::new());
        let (mut containers, mut containers6) = (BTreeSet::new(), BTreeSet::new());
        for Endpoint { ns_ip, ns_ip6, ifindex, mac, .. } in endpoints {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            senders.push(format!("{ifindex} . {mac} . {ns_ip}"));
            gateways.insert(gateway_of((*ns_ip).into()));
            containers.insert(IpAddr::V4(*ns_ip));
            if let Some(ns_ip6) = ns_ip6 {
                senders6.push(format!("{ifindex} . {mac} . {ns_ip6}"));
                gateways6.insert(gateway_of((*ns_ip6).into()));
                containers6.insert(IpAddr::V6(*ns_ip6));
            }
        }
        if let Some(Endpoint { ns_ip, ns_ip6, .. }) = node_itself {
            containers.insert(IpAddr::V4(*ns_ip));
            containers6.extend(ns_ip6.map(IpAddr::V6));
        }
        let tunnels = |v4: bool| {
            let others = others.iter().filter(move |node| node.is_ipv4() == v4);
            others.map(|node| format!("{} . {}", node.ip(), node.port())).collect::<Vec<_>>()
        };
        let addresses =
            |addresses: BTreeSet<IpAddr>| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        // Deleting what may not exist is an error, adding what exists is not.
        let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
        for (name, kind, elements) in [
            ("senders", "iface_index . ether_addr . ipv4_addr", senders),
            ("senders6", "iface_index . ether_addr . ipv6_addr", senders6),
            ("gateways", "ipv4_addr", addresses(gateways)),
            ("gateways6", "ipv6_addr", addresses(gateways6)),
            ("containers", "ipv4_addr", addresses(containers)),
            ("containers6", "ipv6_addr", addresses(containers6)),
            ("tunnels", "ipv4_addr . inet_service", tunnels(true)),
            ("tunnels6", "ipv6_addr . inet_service", tunnels(false)),
        ] {
            let elements = match elements.as_slice() {
                [] => String::new(),
                some => format!("elements = {{ {} }}; ", some.join(", ")),
            };
            // Writing to a String cannot fail.
            let _ok = writeln!(text, "  set {name} {{ type {kind}; {elements}}}");
        }
        let at_uplinks = match uplinks {
            [] => String::new(),
            some => {
                let some: Vec<_> = some.iter().map(u32::to_string).collect();
                format!("iif {{ {} }} goto bare", some.join(", "))
            }
        };
        let mut elsewhere = String::new();
        for address in self.addresses.each() {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            let _ok = write!(elsewhere, "\n    {family} daddr {address} udp dport {tunnel_port} drop");
        }
        let [containers, services] =
            [self.ranges.containers(), self.ranges.services()].map(|[first, last]| format!("{first}-{last}"));
        let _ok = write!(
            text,
            "  chain of_link {{
    icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept
    drop
  }}
  chain from_container {{
    ip daddr {services} drop
    ip daddr {containers} ip daddr != @gateways drop
    ip6 daddr fdff::/16 drop
    ip6 daddr fc00::/8 ip6 daddr != @gateways6 drop
    ip daddr 127.0.0.0/8 drop
    ip6 daddr ::1 drop
    ip6 saddr fe80::/10 goto of_link
    ip6 saddr :: goto of_link
    meta nfproto ipv4 iif . ether saddr . ip saddr != @senders drop
    meta nfproto ipv6 iif . ether saddr . ip6 saddr != @senders6 drop
    udp dport {tunnel_port} drop
    ip daddr . udp dport @tunnels drop
    ip6 daddr . udp dport @tunnels6 drop
    meta nfproto ipv4 udp sport 67 udp dport 68 drop
    meta nfproto ipv6 udp sport 547 udp dport 546 drop
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
  }}
  chain bare {{
    ip saddr @containers drop
    ip daddr @containers drop
    ip6 saddr @containers6 drop
    ip6 daddr @containers6 drop
  }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{OWN_LINK}\" accept
    iifname \"{OWN_LINK_PEER}\" drop
    iifname \"{LINK_PREFIX}*\" jump from_container
    {at_uplinks}{elsewhere}
  }}
}}
"
        );
        text
    }
}

fn nft(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("run nft (is the package nftables installed?): {error}"))
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ends without reading, what it says on its standard error is the better message.
        stdin.write_all(script.as_bytes()).ok();
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("").to_owned();
    Err(io::Error::other(format!("nft refused the rules of table inet {TABLE}: {said}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use protocol::plan::Plan;

    use super::Rules;
    use crate::datapath::{Addresses, Endpoint};

    #[test]
    fn a_container_is_known_by_its_link_its_mac_and_its_address() {
        let endpoint = Endpoint {
            ns_ip: "10.18.0.66".parse().unwrap(),
            ns_ip6: None,
            instance_ip: None,
            instance_ip6: None,
            ifindex: 7,
            mac: [2, 0x48, 10, 18, 0, 66],
            gateway_mac: [6; 6],
        };
        let others = BTreeSet::from(["192.0.2.9:40000".parse().unwrap(), "[2001:db8::2]:4".parse().unwrap()]);
        let node = Endpoint { ns_ip: "10.18.0.126".parse().unwrap(), ..endpoint };
        let rules = Rules {
            containers: &[endpoint],
            node_itself: Some(&node),
            uplinks: &[3, 5],
            addresses: Addresses::from(IpAddr::from([192, 0, 2, 1])),
            tunnel_port: 50103,
            ranges: Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap())
                .unwrap()
                .into(),
            others: &others,
        };
        let text = rules.text();
        for line in [
            "elements = { 7 . 02:48:0a:12:00:42 . 10.18.0.66 }",
            "elements = { 10.18.0.65 }",
            "elements = { 192.0.2.9 . 40000 }",
            "elements = { 2001:db8::2 . 4 }",
            "udp dport 50103 drop",
            "ip daddr 172.24.0.0-172.24.255.255 drop",
            "ip daddr 172.20.0.0-172.23.255.255 ip daddr != @gateways drop",
            "iif { 3, 5 } goto bare",
            "ip daddr 192.0.2.1 udp dport 50103 drop",
            "set containers { type ipv4_addr; elements = { 10.18.0.66, 10.18.0.126 }; }",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("flush"));
    }
}
