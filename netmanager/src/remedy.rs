//! What a person can do about a drop, or why nothing is to be done. What the reason means says
//! [`DropReason::meaning`].

use crate::datapath::DropReason;

/// One line for each reason.
#[must_use]
pub fn of(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Malformed | DropReason::ForeignTunnel => {
            "Nothing, if few. If many: somebody sends noise, or a device on the way damages packets."
        }
        DropReason::NotIp => "Nothing: the overlay carries IP only.",
        DropReason::VlanTag => {
            "Take the VLAN interface out of the container; it would reach into the uplink's VLANs."
        }
        DropReason::IpOptions | DropReason::ExtensionHeaders => {
            "Let the sender leave them out; some ping flags set them."
        }
        DropReason::Fragment => {
            "Nothing, if few: the network has lost a part of a datagram. If many: send smaller datagrams; the status shows the MTU."
        }
        DropReason::OuterFragment => {
            "Look for a device on the way that splits packets, or for an MTU of the uplink that the network does not carry."
        }
        DropReason::UnsupportedProtocol => {
            "Use TCP, UDP or ping towards ServiceIPs; other protocols go by NsIP."
        }
        DropReason::TtlExpired => {
            "Nothing if somebody runs traceroute; else look for a loop of routes in a container."
        }
        DropReason::TooBig => {
            "The sender is told to send smaller packets. If it does not obey: set its MTU to that of its interface eth0."
        }
        DropReason::SpoofedSource => {
            "Let the container send from its own address; a bridge or VPN inside of it needs masquerading."
        }
        DropReason::RouterAdvertisement | DropReason::DhcpServer => {
            "Stop the router or DHCP server in the container; addresses are given by netmanager."
        }
        DropReason::LinkLocal => "Nothing: containers are reached by their NsIP and ServiceIPs.",
        DropReason::TunnelFromContainer => {
            "Let the container use another port; on this one it could speak for any other container."
        }
        DropReason::ServiceUnknown => {
            "Is the address right, the service deployed, the cluster reachable? `netmanager status` shows the session."
        }
        DropReason::NoBackend => "Start an instance, or wait until one runs: `hypha get instances`.",
        DropReason::BackendGone => "Nothing: the client is told by a reset and connects to another instance.",
        DropReason::NoInstanceAddress => {
            "The cluster has not named the sender's ServiceIP yet; if it stays so: is the session up?"
        }
        DropReason::PortClash => "Nothing: the retry takes another port.",
        DropReason::TooManyFlows => {
            "Let the container close connections, or spread its work over more instances; a scan of ports looks like this, too."
        }
        DropReason::TableChanged => "Nothing: the retransmission finds the new entry.",
        DropReason::NoEndpoint => {
            "Is the container still there? If its instance has moved, the cluster tells it within a second."
        }
        DropReason::UnknownPeer => {
            "Nothing at the start of a connection. Else: does the sender belong to this cluster, and is its announced address right?"
        }
        DropReason::ForeignSource => {
            "Is an instance announced by two nodes, or has the sender's node another address than it announces?"
        }
        DropReason::BareInner => {
            "Nothing, if few. If many: a device on the LAN uses addresses of containers here; give it others."
        }
        DropReason::OverBudget => {
            "Nothing: a flood of unknown senders is held off; the log of the network's firewall may know who they are."
        }
        DropReason::NotReady => {
            "Wait until node-engine has registered this node; else see the log of netmanager."
        }
        DropReason::LoopbackDestination => {
            "Let the container use the node's address; what listens on the node's loopback is for the node alone."
        }
        DropReason::KernelRefused => "Look for a shortage of memory in the kernel's log (dmesg).",
    }
}
