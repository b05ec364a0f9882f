//! Which IPv4 addresses the overlay has: the containers' and the services'.
//!
//! Oakestra's are fixed ([`Plan::default`]). Ours are a setting of the root, since somebody's LAN is where Oakestra's are.
//! Workers and clusters learn it with each block of addresses. The ranges of IPv6 stay what they are: see [`crate::address`].

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr};
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::address::{SERVICE6_NETWORK, SUBNET_PREFIX, is_container6};

/// Addresses of one worker's block.
const BLOCK: u32 = 1 << (32 - SUBNET_PREFIX);
/// As many workers as have a number in the store's keys, and more than one root is made for.
const MOST_BLOCKS: u32 = 65_536;
/// Lengths of the services' network: within the two octets that go into the IPv6 address beside each, and of whole third
/// octets.
const SERVICE_PREFIXES: std::ops::RangeInclusive<u8> = 16..=24;

/// Octets three and four of a ServiceIP that is given out are at most this.
pub const SERVICE_OCTET: u8 = 253;

/// The addresses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Why a text names no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    #[error("expected a network (10.30.0.0/16) or two addresses (10.18.0.0-10.29.255.255), got {0:?}")]
    Form(String),
    #[error("{0} is not the first address of its network")]
    Host(String),
    #[error("{0} ends before it begins")]
    Order(String),
}

impl Range {
    /// The network that begins with this address; nothing if it does not, or no network is of this length.
    #[must_use]
    pub const fn network(first: Ipv4Addr, length: u8) -> Option<Self> {
        let hosts = match length {
            0..=31 => u32::MAX >> length,
            32 => 0,
            _ => return None,
        };
        let bits = first.to_bits();
        if bits & hosts != 0 {
            return None;
        }
        Some(Self { first, last: Ipv4Addr::from_bits(bits | hosts) })
    }

    #[must_use]
    pub const fn first(&self) -> Ipv4Addr {
        self.first
    }

    #[must_use]
    pub const fn last(&self) -> Ipv4Addr {
        self.last
    }

    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Bits of the prefix, if the range is one network.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most 32")]
    pub const fn prefix(&self) -> Option<u8> {
        let differ = self.first.to_bits() ^ self.last.to_bits();
        let is_one = differ & differ.wrapping_add(1) == 0 && self.first.to_bits() & differ == 0;
        if is_one { Some(differ.leading_zeros() as u8) } else { None }
    }
}

impl FromStr for Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let form = || InvalidRange::Form(text.to_owned());
        let address = |part: &str| part.trim().parse().map_err(|_no: AddrParseError| form());
        if let Some((first, last)) = text.split_once('-') {
            let range = Self { first: address(first)?, last: address(last)? };
            return if range.first <= range.last {
                Ok(range)
            } else {
                Err(InvalidRange::Order(text.to_owned()))
            };
        }
        let (first, length) = text.split_once('/').ok_or_else(form)?;
        let first = address(first)?;
        let length = length.parse().map_err(|_no: ParseIntError| form())?;
        if length > 32 {
            return Err(form());
        }
        Self::network(first, length).ok_or_else(|| InvalidRange::Host(text.to_owned()))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix() {
            Some(length) => write!(f, "{}/{length}", self.first),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The overlay's two ranges, which share no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Plan {
    containers: Range,
    services: Range,
}

/// A plan as it comes.
#[derive(Deserialize)]
struct Written {
    containers: Range,
    services: Range,
}

impl TryFrom<Written> for Plan {
    type Error = InvalidPlan;

    fn try_from(Written { containers, services }: Written) -> Result<Self, InvalidPlan> {
        Self::new(containers, services)
    }
}

/// Why two ranges are no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    #[error("{0} has addresses that no host can have")]
    NoHosts(Range),
    #[error("the containers' {containers} and the services' {services} overlap")]
    Overlap { containers: Range, services: Range },
    #[error("the containers' {0} does not consist of whole blocks of {BLOCK} addresses, one for each worker")]
    Blocks(Range),
    #[error("the containers' {0} has more than {MOST_BLOCKS} blocks of {BLOCK} addresses")]
    TooManyBlocks(Range),
    #[error(
        "the services' {0} is not one network of a length from /{start} to /{end}, with a third octet of up to {SERVICE_OCTET}",
        start = SERVICE_PREFIXES.start(),
        end = SERVICE_PREFIXES.end()
    )]
    Services(Range),
}

impl Plan {
    /// # Errors
    /// When the ranges overlap, cannot be divided as they must be, or are not for hosts.
    pub fn new(containers: Range, services: Range) -> Result<Self, InvalidPlan> {
        for range in [containers, services] {
            if !is_for_hosts(&range) {
                return Err(InvalidPlan::NoHosts(range));
            }
        }
        if containers.overlaps(&services) {
            return Err(InvalidPlan::Overlap { containers, services });
        }
        let (first, last) = (containers.first.to_bits(), containers.last.to_bits());
        if !first.is_multiple_of(BLOCK) || last % BLOCK != BLOCK - 1 {
            return Err(InvalidPlan::Blocks(containers));
        }
        if (last - first) / BLOCK >= MOST_BLOCKS {
            return Err(InvalidPlan::TooManyBlocks(containers));
        }
        let is_one = services.prefix().is_some_and(|length| SERVICE_PREFIXES.contains(&length));
        if !is_one || services.first.octets()[2] > SERVICE_OCTET {
            return Err(InvalidPlan::Services(services));
        }
        Ok(Self { containers, services })
    }

    /// Where the workers' blocks are.
    #[must_use]
    pub const fn containers(&self) -> Range {
        self.containers
    }

    /// Where the ServiceIPs are.
    #[must_use]
    pub const fn services(&self) -> Range {
        self.services
    }

    /// The network that the ServiceIPs are: its first address and the length of its prefix.
    #[must_use]
    pub const fn service_network(&self) -> (Ipv4Addr, u8) {
        // One network, as `new` has seen.
        let differ = self.services.first.to_bits() ^ self.services.last.to_bits();
        #[allow(clippy::cast_possible_truncation, reason = "at most 32")]
        (self.services.first, differ.leading_zeros() as u8)
    }

    /// Whether this is the plan of Oakestra's, which goes without saying.
    #[must_use]
    pub fn is_oakestras(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `address` is a ServiceIP, of any kind.
    #[must_use]
    pub fn is_service(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.services.contains(address),
            IpAddr::V6(address) => address.segments()[0] == SERVICE6_NETWORK.segments()[0],
        }
    }

    /// Whether `address` lies in the range of the workers' blocks: an NsIP, a gateway, or one that nobody has.
    #[must_use]
    pub fn is_container(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.containers.contains(address),
            IpAddr::V6(address) => is_container6(address),
        }
    }
}

/// Oakestra's.
impl Default for Plan {
    fn default() -> Self {
        Self {
            containers: Range { first: Ipv4Addr::new(10, 18, 0, 0), last: Ipv4Addr::new(10, 29, 255, 255) },
            services: Range { first: Ipv4Addr::new(10, 30, 0, 0), last: Ipv4Addr::new(10, 30, 255, 255) },
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "containers {}, services {}", self.containers, self.services)
    }
}

/// Neither this network (0), loopback, the link's own (169.254), groups, nor what lies behind those.
fn is_for_hosts(range: &Range) -> bool {
    let taken = [([0, 0, 0, 0], [0, 255, 255, 255]), ([127, 0, 0, 0], [127, 255, 255, 255])];
    let taken = taken
        .into_iter()
        .chain([([169, 254, 0, 0], [169, 254, 255, 255]), ([224, 0, 0, 0], [255, 255, 255, 255])]);
    taken.into_iter().all(|(first, last)| !range.overlaps(&Range { first: first.into(), last: last.into() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{InvalidPlan, InvalidRange, Plan, Range};

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    fn plan(containers: &str, services: &str) -> Result<Plan, InvalidPlan> {
        Plan::new(range(containers), range(services))
    }

    #[test]
    fn a_range_is_written_as_a_network_where_it_is_one() {
        for (text, written) in [
            ("10.30.0.0/16", "10.30.0.0/16"),
            ("10.18.0.0-10.29.255.255", "10.18.0.0-10.29.255.255"),
            ("172.20.0.0 - 172.23.255.255", "172.20.0.0/14"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(range(text).to_string(), written, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_stood_there() {
        for wrong in
            ["", "10.30.0.0", "10.30.0.0/33", "10.30.0.0/", "10.30/16", "a-b", "fd00::/8", "10.0.0.1-"]
        {
            assert_eq!(wrong.parse::<Range>(), Err(InvalidRange::Form(wrong.to_owned())));
        }
        assert_eq!("10.30.0.1/16".parse::<Range>(), Err(InvalidRange::Host("10.30.0.1/16".to_owned())));
        let order = "10.30.0.1-10.30.0.0";
        assert_eq!(order.parse::<Range>(), Err(InvalidRange::Order(order.to_owned())));
    }

    #[test]
    fn oakestras_plan_tells_containers_from_services() {
        let plan = Plan::default();
        assert_eq!(Plan::new(plan.containers(), plan.services()), Ok(plan));
        assert_eq!(plan.service_network(), ([10, 30, 0, 0].into(), 16));
        for (address, service, container) in [
            ("10.30.0.0", true, false),
            ("10.30.255.255", true, false),
            ("10.18.0.0", false, true),
            ("10.29.255.255", false, true),
            ("10.17.255.255", false, false),
            ("10.31.0.0", false, false),
            ("fdff:2000::1", true, false),
            ("fc00::102", false, true),
            ("fd12:3456::1", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                (plan.is_service(address), plan.is_container(address)),
                (service, container),
                "{address}"
            );
        }
    }

    #[test]
    fn ranges_that_cannot_be_used_are_no_plan() {
        assert!(plan("172.20.0.0/14", "172.24.0.0/20").is_ok());
        assert!(plan("100.64.0.0/10", "192.168.200.0/24").is_ok());
        for (containers, services) in [
            ("127.0.0.0/16", "10.30.0.0/16"),
            ("10.0.0.0/10", "224.1.0.0/16"),
            ("0.0.0.0/24", "10.30.0.0/16"),
            ("169.192.0.0/10", "10.30.0.0/16"),
        ] {
            let refused = plan(containers, services);
            assert!(matches!(refused, Err(InvalidPlan::NoHosts(_))), "{containers}, {services}: {refused:?}");
        }
        assert!(matches!(plan("10.0.0.0/10", "10.30.0.0/16"), Err(InvalidPlan::Overlap { .. })));
        assert!(matches!(plan("10.18.0.0/27", "10.30.0.0/16"), Err(InvalidPlan::Blocks(_))));
        assert!(matches!(plan("10.18.0.32-10.18.0.95", "10.30.0.0/16"), Err(InvalidPlan::Blocks(_))));
        assert!(matches!(plan("96.0.0.0/9", "10.30.0.0/16"), Err(InvalidPlan::TooManyBlocks(_))));
        for services in ["10.30.0.0/15", "10.30.0.0/25", "10.30.0.0-10.30.0.200", "10.30.254.0/24"] {
            assert!(matches!(plan("172.20.0.0/14", services), Err(InvalidPlan::Services(_))), "{services}");
        }
    }

    #[test]
    fn a_plan_that_is_read_was_checked() {
        let written = json!({"containers": "172.20.0.0/14", "services": "172.24.0.0/16"});
        let read: Plan = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written);
        let overlapping = json!({"containers": "10.0.0.0/10", "services": "10.30.0.0/16"});
        assert!(serde_json::from_value::<Plan>(overlapping).unwrap_err().to_string().contains("overlap"));
    }

    proptest! {
        #[test]
        fn a_range_is_read_as_it_was_written(a in any::<u32>(), b in any::<u32>()) {
            let (first, last) = (a.min(b).into(), a.max(b).into());
            let written = Range { first, last };
            prop_assert_eq!(written.to_string().parse::<Range>(), Ok(written));
        }

        #[test]
        fn a_network_holds_what_begins_as_it_does(bits in any::<u32>(), length in 1u32..=32, other in any::<u32>()) {
            let first = bits & (u32::MAX << (32 - length));
            let network = range(&format!("{}/{length}", std::net::Ipv4Addr::from_bits(first)));
            prop_assert_eq!(network.prefix().map(u32::from), Some(length));
            prop_assert_eq!(network.contains(other.into()), (other ^ first) >> (32 - length) == 0);
        }
    }
}
