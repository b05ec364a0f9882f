//! What is measured: ways to connect two containers, and what lies under them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};
use serde::{Deserialize, Serialize};

/// What joins the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Underlay {
    /// A link that takes packets of 64 KB whole, as between virtual machines of one host.
    Superpacket,
    /// A link that carries packets of wire size, which the receiver may merge again, as a network card without any
    /// knowledge of tunnels.
    Wire,
    /// None: both containers are on one node.
    SameNode,
}

impl Underlay {
    pub(crate) const ALL: [Self; 3] = [Self::Superpacket, Self::Wire, Self::SameNode];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Superpacket => "superpacket",
            Self::Wire => "wire",
            Self::SameNode => "same-node",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Superpacket => "two nodes, a link with all offloads: packets of up to 64 KB pass whole",
            Self::Wire => {
                "two nodes, packets of wire size between them: the sender segments, the receiver has GRO"
            }
            Self::SameNode => "both containers on one node",
        }
    }
}

/// How the containers reach each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Variant {
    /// Routed by the kernel, without any overlay: the limit.
    Plain,
    /// The same with a program on both uplinks that lets everything pass: what XDP costs on a veth.
    PlainXdp,
    /// The kernel's VXLAN, set up as flannel does.
    Vxlan,
    /// The kernel's GENEVE, and its IPIP, each with a device for the other node.
    Geneve,
    Ipip,
    /// Hypha, by the container's own address: no translation.
    NsIp,
    /// Hypha, by the service's address.
    ServiceIp,
    /// The same by the link whose packets the kernel merges on arrival.
    Vx,
    /// The same as bare packets whose outer headers the driver takes off, before the kernel merges them.
    Early,
    /// The real netmanager on both nodes, by the service's address: it finds out by itself which link is best.
    Auto,
    /// Hypha, by the service's address, without BPF: a process on each node.
    Userspace,
    /// Encrypted, by a process on each node.
    Nebula,
    /// Encrypted: WireGuard as a process on each node.
    Boringtun,
    /// Brought along by whoever runs this.
    Extra(String),
}

impl Variant {
    /// In the order in which they are shown.
    pub(crate) const BUILT_IN: [Self; 13] = [
        Self::Plain,
        Self::PlainXdp,
        Self::Vxlan,
        Self::Geneve,
        Self::Ipip,
        Self::NsIp,
        Self::ServiceIp,
        Self::Vx,
        Self::Early,
        Self::Auto,
        Self::Userspace,
        Self::Nebula,
        Self::Boringtun,
    ];

    pub(crate) fn description(&self) -> &'static str {
        match self {
            Self::Plain => {
                "routed by the kernel, no overlay, MTU 1500; on one node: two veths through the host's stack"
            }
            Self::PlainXdp => "plain, with an XDP program that passes everything on both uplinks",
            Self::Vxlan => "kernel VXLAN with a bridge, set up as flannel does, MTU 1450",
            Self::Geneve => "kernel GENEVE, one device for the other node, MTU 1450",
            Self::Ipip => "kernel IPIP, one device for the other node, MTU 1480",
            Self::NsIp => "Hypha, by the container's address (NsIP), MTU as netmanager gives it",
            Self::ServiceIp => "Hypha, by the service's address (ServiceIP), MTU as netmanager gives it",
            Self::Vx => "Hypha by ServiceIP, in packets that the kernel knows and merges (the vx link)",
            Self::Early => {
                "Hypha by ServiceIP, unwrapped by XDP in the driver (netmanager --decapsulation xdp)"
            }
            Self::Auto => "Hypha by ServiceIP as people run it: the real netmanager chooses the link",
            Self::Userspace => {
                "Hypha without BPF, by the service's address: translated in user space, MTU as netmanager gives it"
            }
            Self::Nebula => "Nebula, encrypted in user space, MTU 1300 (its default)",
            Self::Boringtun => "WireGuard by boringtun, encrypted in user space, MTU 1420",
            Self::Extra(_) => "brought along by --extra",
        }
    }

    /// Whether there is such a thing.
    pub(crate) fn exists_on(&self, underlay: Underlay) -> bool {
        match self {
            Self::Plain | Self::ServiceIp | Self::NsIp | Self::Userspace | Self::Extra(_) => true,
            Self::PlainXdp | Self::Early => underlay == Underlay::Wire,
            Self::Vx
            | Self::Auto
            | Self::Vxlan
            | Self::Geneve
            | Self::Ipip
            | Self::Nebula
            | Self::Boringtun => underlay != Underlay::SameNode,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::PlainXdp => "plain-xdp",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Ipip => "ipip",
            Self::NsIp => "hypha-nsip",
            Self::ServiceIp => "hypha-serviceip",
            Self::Vx => "hypha-vx",
            Self::Early => "hypha-xdp",
            Self::Auto => "hypha-auto",
            Self::Userspace => "hypha-userspace",
            Self::Nebula => "nebula",
            Self::Boringtun => "boringtun",
            Self::Extra(name) => name,
        })
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(known) = Self::BUILT_IN.into_iter().find(|variant| variant.to_string() == text) {
            return Ok(known);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 30 || !text.chars().all(fits) {
            bail!("{text:?} is no name of a variant: expected 1 to 30 letters, digits, - or _");
        }
        Ok(Self::Extra(text.to_owned()))
    }
}

impl From<Variant> for String {
    fn from(variant: Variant) -> Self {
        variant.to_string()
    }
}

impl TryFrom<String> for Variant {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}
