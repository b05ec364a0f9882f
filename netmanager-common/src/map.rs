//! One struct for each key and value of the maps, with the map's name and capacity.
//!
//! "User" is netmanager; "container" and "uplink" are the two programs. Maps that user space fills are plain hashes
//! that nothing evicts; only what the kernel side itself makes (flows, and when it last reported a miss) may fall out.

use crate::link::Link;
use crate::wire::{Be16, Ip, Ip4};

/// The node itself: one [`Node`] at index 0. User writes; both programs read.
pub const NODE: &str = "NODE";
/// Which addresses are whose: one [`Plan`](crate::plan::Plan) at index 0. User writes, before a program is attached, and while no
/// container is if the root has other addresses; both programs read.
pub const PLAN: &str = "PLAN";
/// Containers of this node by NsIP, one entry for each: [`Ip`] to [`Endpoint`]. User writes; both programs read. A
/// missing entry: the container is not here.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Services by address: [`Ip`] to [`Service`]. User writes whole values; container reads, once per connection. A
/// missing entry raises a miss.
pub const SERVICES: &str = "SERVICES";
/// Instances by number: [`Backend`]. User writes; both programs read.
pub const BACKENDS: &str = "BACKENDS";
/// The instance that has an address: [`Ip`], NsIP or instance address, to the number of its backend. User writes;
/// container reads to send to an NsIP, uplink to check an inner source.
pub const HOSTS: &str = "HOSTS";
/// Where other nodes listen: [`Peer`] to 1. A node has two entries, one with its port and one with port 0 that stands
/// for the node as such, since its own packets may come from any port. User writes; container reads the first, to
/// keep containers away from there, uplink the second.
pub const PEERS: &str = "PEERS";
/// Flows, both directions: [`FlowKey`] to [`Flow`]. Least recently used fall out. Both programs write.
pub const FLOWS: &str = "FLOWS";
/// What must not fall out of [`FLOWS`] though many others come: the flows in which both ends take part and a backend was
/// chosen. Written when that is so, and once more into [`FLOWS`] when it is looked for there in vain; removed at the end of
/// the connection. Of these too the least recently looked for fall out. Both programs write.
pub const ASSURED: &str = "ASSURED";
/// [`Budget`](crate::budget::Budget) by [`Veth::slot`]: how many flows the container may begin that nobody answers. Both
/// programs write.
pub const NEW_FLOWS: &str = "NEW_FLOWS";
/// [`Health`](crate::health::Health) by the number of a backend. Both programs write; user reads, and clears it before the
/// number is used.
pub const HEALTH: &str = "HEALTH";
/// How many flows of this node's containers a backend has for which it was chosen among several, by its number, for
/// [`Policy::LeastConnections`]. Both programs count; user counts anew from time to time, and clears it before the number is used.
pub const LOADS: &str = "LOADS";
/// Whose turn it is: service address to the number of connections begun so far. User makes and removes the entry
/// together with the service's; container counts.
pub const TURNS: &str = "TURNS";
/// Service addresses whose turn is being taken at this moment, to the second of the monotonic clock when that began.
/// Container inserts and removes.
pub const TURN_LOCKS: &str = "TURN_LOCKS";
/// When a service address was last reported as missing, nanoseconds of the monotonic clock. Both programs write.
pub const MISSES: &str = "MISSES";
/// The ring of [`crate::event::MissRecord`]. Both programs write, user reads.
pub const EVENTS: &str = "EVENTS";
/// Packets dropped, per CPU, by [`crate::event::DropReason`]. Both programs write, user reads.
pub const DROPS: &str = "DROPS";
/// [`Traffic`] per CPU, by [`Veth::slot`]. Both programs write; user reads, and clears a slot before it is used.
pub const TRAFFIC: &str = "TRAFFIC";
/// Ports of datagrams that come in fragments: [`FragmentKey`] to [`FragmentPorts`]. A first fragment writes, later ones,
/// which have no ports, read. Least recently used fall out. All programs write.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// The interface of netmanager's TAP device at index 0, or 0 while there is none. User writes; all programs read, and
/// send what they cannot finish there: see [`crate::punt`].
pub const SLOW_PATH: &str = "SLOW_PATH";
/// [`crate::budget::Budget`] by [`Veth::slot`] for what a container sends, after those by slot for what arrives for it, and
/// at [`STRANGERS_BUDGET`] that of all addresses of the underlay where no node is known. All programs write.
pub const BUDGETS: &str = "BUDGETS";
/// Who sends through the tunnel from where nothing is known: [`Ip`] on the underlay to [`crate::budget::Budget`]. Least
/// recently used fall out, which only makes the budget full again. Uplink writes.
pub const SENDERS: &str = "SENDERS";
/// What the XDP program at the uplink has done, per CPU, by [`Early`]. It writes, user reads.
pub const EARLY: &str = "EARLY";
/// Packets given to the slow path, per CPU, by [`crate::event::DropReason`]. All programs write, user reads.
pub const PUNTS: &str = "PUNTS";
/// What a person who watches wants to see: one [`crate::trace::Switch`] at index 0. A tracer writes; the programs at tc read,
/// and switch it off when its time is over.
pub const TRACE: &str = "TRACE";
/// How much of it may be told, and what was not: one [`crate::trace::Told`] at index 0. The programs at tc write, a tracer
/// reads.
pub const TRACED: &str = "TRACED";
/// The ring of [`crate::trace::Record`]. The programs at tc write, a tracer reads.
pub const TRACES: &str = "TRACES";

/// Since which ABI version the rows of [`PEERS`], [`BACKENDS`], [`HOSTS`], [`TURNS`], [`SERVICES`], [`FLOWS`] and [`ASSURED`] are as
/// they are now, in layout and in meaning. They refer to each other by number, so an upgrade takes them over from the
/// older data plane all together or not at all. Whoever changes one of their structs raises this to
/// [`crate::ABI_VERSION`]; connections then begin anew at the upgrade.
pub const ROUTING_SINCE: u32 = 7;

/// Two shares a container, and one.
pub const MAX_BUDGETS: u32 = 2 * MAX_ENDPOINTS + 1;
/// The last of [`BUDGETS`].
pub const STRANGERS_BUDGET: u32 = 2 * MAX_ENDPOINTS;
/// Twice the containers of a full /24, with two NsIPs each; Oakestra's nodes have at most 61.
pub const MAX_ENDPOINTS: u32 = 1024;
/// Service addresses that one node talks to at a time.
pub const MAX_SERVICES: u32 = 16_384;
/// Instances that one node talks to at a time.
pub const MAX_BACKENDS: u32 = 32_768;
/// Two addresses an instance and family.
pub const MAX_HOSTS: u32 = 4 * MAX_BACKENDS;
/// Two entries a node that this one talks to.
pub const MAX_PEERS: u32 = 32_768;
/// Two entries a connection; 10 MB of kernel memory when full.
pub const MAX_FLOWS: u32 = 65_536;
/// Two entries a connection; 10 MB of kernel memory.
pub const MAX_ASSURED: u32 = 65_536;
/// Fragmented datagrams under way at one time.
pub const MAX_FRAGMENTS: u32 = 4096;
/// CPUs that may begin a connection at the same time.
pub const MAX_TURN_LOCKS: u32 = 1024;
/// Service addresses whose last report is remembered.
pub const MAX_MISSES: u32 = 4096;
/// Interfaces towards other nodes. A power of two.
pub const MAX_UPLINKS: usize = 8;
/// Addresses on the underlay that are kept an eye on at a time.
pub const MAX_SENDERS: u32 = 4096;
/// Numbers of [`Early`].
pub const MAX_EARLY: u32 = 2;
/// Bytes: a power of two and a multiple of any page size.
pub const EVENTS_SIZE: u32 = 65_536;
/// Bytes, likewise: what is told in half a second.
pub const TRACES_SIZE: u32 = 65_536;
/// Instances that one service address can stand for. A power of two.
pub const MAX_BACKENDS_PER_SERVICE: usize = 64;

/// Value of [`NODE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Node {
    /// Source of the packets to other nodes' IPv4 addresses, and where theirs must arrive; none without IPv4 and
    /// until the node is set up.
    pub address: Ip4,
    /// The same of IPv6.
    pub address6: Ip,
    /// The interface whose address this is, and from which packets leave where nothing else is known. User reads.
    pub uplink_ifindex: u32,
    /// The interfaces at which packets of other nodes may arrive, `uplink_ifindex` among them; 0 where there is none. What
    /// leaves for a backend leaves through the one at [`Backend::egress`].
    pub uplinks: [u32; MAX_UPLINKS],
    /// UDP port on which other nodes' packets arrive.
    pub tunnel_port: Be16,
    /// The largest inner packet on the uplink, whatever the outer family: the MTU of containers. User reads.
    pub inner_mtu: u16,
}

const _: () = assert!(size_of::<Node>() == 4 + 16 + 4 + 4 * MAX_UPLINKS + 2 + 2);

impl Node {
    /// The interface through which packets for this backend's node leave; 0 if there is none.
    #[must_use]
    #[inline(always)]
    pub const fn egress_to(&self, backend: &Backend) -> u32 {
        self.uplinks[backend.egress as usize % MAX_UPLINKS]
    }

    /// The node's own end of a tunnel to `peer`; none if it has no address of that family.
    #[must_use]
    #[inline(always)]
    pub const fn address_towards(&self, peer: Ip) -> Ip {
        if peer.is_v4() { Ip::from_optional_v4(self.address) } else { self.address6 }
    }

    /// An address of its own, of IPv4 if it has one; none until the node is set up.
    #[must_use]
    pub fn own_address(&self) -> Ip {
        let v4 = Ip::from_optional_v4(self.address);
        if v4.is_none() { self.address6 } else { v4 }
    }
}

/// Value of [`ENDPOINTS`]. A container with an NsIP of each family has two entries with one slot; what is of a family is
/// of the key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Endpoint {
    /// The key again, and first, as in [`Service`].
    pub ns_ip: Ip,
    /// The instance's own service address, or none. The node itself has none that others know: what it sends keeps
    /// its NsIP as source, which stands here.
    pub instance_ip: Ip,
    /// The container's attachment.
    pub veth: Veth,
}

const _: () = assert!(size_of::<Endpoint>() == 16 + 16 + size_of::<Veth>());

/// The part of an [`Endpoint`] that every packet needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Veth {
    /// The host side.
    pub ifindex: u32,
    /// Index into [`TRAFFIC`].
    pub slot: u32,
    /// MAC of the container's side.
    pub mac: [u8; 6],
    /// MAC of the host's side.
    pub gateway_mac: [u8; 6],
    /// [`CONTAINER`] or [`NODE_ITSELF`].
    pub holder: u32,
}

const _: () = assert!(size_of::<Veth>() == 4 + 4 + 6 + 6 + 4);

/// The veth's other end is in a container.
pub const CONTAINER: u32 = 0;
/// The veth's other end is in the namespace of the node itself, whose own processes speak through it. Nothing but answers
/// is delivered there.
pub const NODE_ITSELF: u32 = 1;

impl Veth {
    /// Whether it is the node's own.
    #[must_use]
    #[inline(always)]
    pub const fn is_node_itself(&self) -> bool {
        self.holder == NODE_ITSELF
    }
}

/// Value of [`SERVICES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// The key again, and first. Since Linux 6.1 the kernel may put another entry into the memory of a replaced or
    /// removed one at once, while a packet still reads there. It writes values from their beginning: a reader that
    /// finds its own address here after it has read the rest has read no other entry's.
    pub service_ip: Ip,
    /// How many of `backends` are chosen from: the first ones.
    pub count: u16,
    /// How many follow that get no new flows: they drain, or are set aside. They keep what they have.
    pub resting: u16,
    /// A [`Policy`].
    pub policy: u16,
    /// Where their turns begin: see [`crate::flow::first_turn`]. 0 where they take none.
    pub first: u16,
    /// Indices into [`BACKENDS`].
    pub backends: [u16; MAX_BACKENDS_PER_SERVICE],
}

const _: () = assert!(size_of::<Service>() == 16 + 4 * 2 + 2 * MAX_BACKENDS_PER_SERVICE);
const _: () = assert!(MAX_BACKENDS <= 1 << 16);
const _: () = assert!(MAX_BACKENDS_PER_SERVICE.is_power_of_two());

/// How a connection's backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Policy {
    /// Each new connection takes the next backend in turn.
    RoundRobin = 0,
    /// The address of one instance: its only backend.
    Instance = 1,
    /// Each new connection takes the first backend of the list, which is in the order of their distance.
    Closest = 2,
    /// Each new connection takes the backend to which the fewest from this node are open; of several that whose turn comes
    /// first.
    LeastConnections = 3,
}

/// Not a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPolicy(pub u16);

impl TryFrom<u16> for Policy {
    type Error = UnknownPolicy;

    fn try_from(number: u16) -> Result<Self, UnknownPolicy> {
        match number {
            0 => Ok(Self::RoundRobin),
            1 => Ok(Self::Instance),
            2 => Ok(Self::Closest),
            3 => Ok(Self::LeastConnections),
            _ => Err(UnknownPolicy(number)),
        }
    }
}

/// Value of [`BACKENDS`]. The container and its addresses stay what they are while the number is in use, and numbers are
/// reused as late as possible: whoever reads while user space writes sees the old value, or the new one, or that the
/// number is no longer in use. How the container is reached may change meanwhile: where its node is, the MTU, the egress,
/// the link, and `aside`. A reader at that very moment may see part of the old and part of the new, and loses this one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Backend {
    /// Odd while the number is in use, even while it is not; counted up at each change. A flow remembers it, and so
    /// notices when its backend has gone, also if the number means another instance by then.
    pub generation: u32,
    /// The container, if it has IPv4.
    pub ns_ip: Ip4,
    /// The container, if it has IPv6.
    pub ns_ip6: Ip,
    /// The address from which its IPv4 packets come.
    pub instance_ip: Ip4,
    /// The address from which its IPv6 packets come.
    pub instance_ip6: Ip,
    /// Where its node listens.
    pub node: Ip,
    /// Where its node listens.
    pub port: Be16,
    /// The largest inner packet that reaches its node, as far as is known.
    pub mtu: u16,
    /// Whether it is set aside, 1 or 0: what can go on elsewhere does.
    pub aside: u8,
    /// Through which of [`Node::uplinks`] its node is reached.
    pub egress: u8,
    /// How packets to its node are wrapped: a [`Link`].
    pub link: u8,
    /// Zero.
    pub _pad: u8,
}

const _: () = assert!(size_of::<Backend>() == 4 + 4 + 16 + 4 + 16 + 16 + 2 + 2 + 1 + 1 + 1 + 1);

impl Backend {
    /// Whether the number stands for an instance.
    #[must_use]
    #[inline(always)]
    pub const fn in_use(&self) -> bool {
        self.generation & 1 == 1
    }

    /// How packets to its node are wrapped.
    #[must_use]
    #[inline(always)]
    pub const fn link(&self) -> Link {
        // Rows of older versions have 0 there.
        if self.link == Link::Vx as u8 { Link::Vx } else { Link::Bare }
    }

    /// The container's address in the family of `like`; none if it has none.
    #[must_use]
    #[inline(always)]
    pub const fn ns_ip_like(&self, like: Ip) -> Ip {
        if like.is_v4() { Ip::from_optional_v4(self.ns_ip) } else { self.ns_ip6 }
    }

    /// The same of the address from which its packets come.
    #[must_use]
    #[inline(always)]
    pub const fn instance_ip_like(&self, like: Ip) -> Ip {
        if like.is_v4() { Ip::from_optional_v4(self.instance_ip) } else { self.instance_ip6 }
    }

    /// The address from which the instance answers `client`, an NsIP, which speaks to others as `sender`. Towards an
    /// instance's service address its node translates the answer, as it does what the instance itself begins; the node
    /// itself has no such address and speaks under its NsIP, to which the answer goes as it is.
    #[must_use]
    #[inline(always)]
    pub fn answers_from(&self, client: Ip, sender: Ip) -> Ip {
        if sender == client { self.ns_ip_like(sender) } else { self.instance_ip_like(sender) }
    }

    /// Whether packets with this source may be the instance's.
    #[must_use]
    #[inline(always)]
    pub fn owns(&self, address: Ip) -> bool {
        self.ns_ip_like(address) == address || self.instance_ip_like(address) == address
    }
}

/// Key of [`PEERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Peer {
    /// The node's address.
    pub address: Ip,
    /// Where it listens, or 0.
    pub port: Be16,
    /// Zero.
    pub _pad: [u8; 2],
}

const _: () = assert!(size_of::<Peer>() == 16 + 2 + 2);

impl Peer {
    /// A node's tunnel.
    #[must_use]
    #[inline(always)]
    pub const fn listening(address: Ip, port: Be16) -> Self {
        Self { address, port, _pad: [0; 2] }
    }

    /// A node, wherever it listens.
    #[must_use]
    #[inline(always)]
    pub const fn node(address: Ip) -> Self {
        Self::listening(address, Be16::new(0))
    }
}

/// Key of [`FLOWS`]. There are two directions:
/// * *forward*, what a container sends to a service address: `ifindex` is the host side of its veth, the rest is as
///   the container wrote it. A hit proves that the source was checked when the flow began.
/// * *arrival*, what comes back: `ifindex` is 0, the rest is as it came out of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The host side of the sender's veth; 0 in the arrival direction.
    pub ifindex: u32,
    /// Source of the packet.
    pub source: Ip,
    /// Destination of the packet.
    pub destination: Ip,
    /// Source port, or as in [`crate::flow::Ports`].
    pub source_port: Be16,
    /// Destination port, or as in [`crate::flow::Ports`].
    pub destination_port: Be16,
    /// IP protocol. As wide as it is so that nothing has to be padded, which would cost every packet a call of memset.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 4 + 16 + 16 + 2 + 2 + 4);

/// Value of [`FLOWS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flow {
    /// The source that packets get: forward the sender's instance address, arriving the service address that the
    /// receiver dialled.
    pub source: Ip,
    /// Index into [`BACKENDS`].
    pub backend: u32,
    /// The backend's generation when it was chosen.
    pub generation: u32,
    /// The endpoint's [`Veth::slot`].
    pub slot: u32,
    /// When the last packet was seen: seconds of the monotonic clock.
    pub last_seen: u32,
    /// When it began: microseconds of the monotonic clock, wrapped; 0 if its first packet says nothing of the time until
    /// the answer.
    pub began: u32,
    /// A [`State`](crate::life::State).
    pub state: u8,
    /// Whether the backend was one of several that the address stands for, and not the instance itself: 0 or 1.
    pub chosen: u8,
    /// Zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<Flow>() == 16 + 4 + 4 + 4 + 4 + 4 + 1 + 1 + 2);

/// Key of [`FRAGMENTS`]: what all fragments of a datagram have in common (RFC 791, 2.3; RFC 8200, 4.5), and where they
/// arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// The interface where the fragments arrived.
    pub ifindex: u32,
    /// Source of the fragments.
    pub source: Ip,
    /// Destination of the fragments.
    pub destination: Ip,
    /// As the sender has numbered the datagram, in the order of the wire.
    pub identification: u32,
    /// IP protocol.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 4 + 16 + 16 + 4 + 4);

/// Value of [`FRAGMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FragmentPorts {
    /// As in [`crate::flow::Ports`].
    pub source: Be16,
    /// As in [`crate::flow::Ports`].
    pub destination: Be16,
    /// When the first fragment came: seconds of the monotonic clock.
    pub since: u32,
}

const _: () = assert!(size_of::<FragmentPorts>() == 2 + 2 + 4);

/// Value of [`TRAFFIC`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Traffic {
    /// Into the overlay.
    pub sent_packets: u64,
    /// Of IP, headers included, before encapsulation.
    pub sent_bytes: u64,
    /// Out of the overlay.
    pub received_packets: u64,
    /// Of IP, headers included, after decapsulation.
    pub received_bytes: u64,
}

const _: () = assert!(size_of::<Traffic>() == 8 + 8 + 8 + 8);

/// What the XDP program at the uplink puts before a frame whose outer headers it has taken off, as the kernel's metadata:
/// no sender can. It is the same for all packets of a connection, else the kernel would not merge them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Unwrapped {
    /// [`Self::MARK`].
    pub mark: u32,
    /// Where the packet is to go: its receiver was looked up when it was checked.
    pub receiver: Veth,
}

const _: () = assert!(size_of::<Unwrapped>() == 4 + size_of::<Veth>());
// What the kernel has room for, and compares word by word.
const _: () = assert!(size_of::<Unwrapped>() <= 32 && size_of::<Unwrapped>().is_multiple_of(4));

impl Unwrapped {
    /// Programs of another ABI version do not understand each other.
    pub const MARK: u32 = 0x4859_0000 | crate::ABI_VERSION;
}

/// Index into [`EARLY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Early {
    /// The outer headers were taken off.
    Unwrapped = 0,
    /// They were left on, since the driver gives no room for [`Unwrapped`].
    NoMetadata = 1,
}

#[cfg(feature = "user")]
mod pod {
    use super::{Backend, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, Node, Peer, Service, Traffic};
    use crate::budget::Budget;
    use crate::health::Health;
    use crate::plan::Plan;
    use crate::trace::{Switch, Told};
    use crate::wire::Ip;

    macro_rules! pod {
        ($($name:ty),+) => {
            $(
                // SAFETY: integers and byte arrays only, and no padding, as the assertions on its size show: every
                // byte is initialised and every pattern of bytes is a value.
                unsafe impl aya::Pod for $name {}
            )+
        };
    }

    pod!(Ip, Node, Endpoint, Service, Backend, Peer, FlowKey, Flow, FragmentKey, FragmentPorts, Traffic);
    pod!(Budget, Health, Plan, Switch, Told);
}

#[cfg(test)]
mod tests {
    use super::{Backend, Flow, FlowKey, Peer, ROUTING_SINCE, Service};

    #[test]
    fn who_changes_a_row_that_upgrades_take_over_says_so() {
        let sizes = [
            size_of::<Peer>(),
            size_of::<Backend>(),
            size_of::<Service>(),
            size_of::<FlowKey>(),
            size_of::<Flow>(),
        ];
        assert_eq!((ROUTING_SINCE, sizes), (7, [20, 68, 152, 44, 40]), "see ROUTING_SINCE");
    }
}
