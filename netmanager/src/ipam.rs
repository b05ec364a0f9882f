//! The addresses of this node's block: who gets which, and when one is given again.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocol::address::{self, SUBNET_PREFIX, SUBNET6_PREFIX};
use protocol::plan::{Plan, Range};

/// Addresses for containers in one block: 64, less network, gateway, the node itself and broadcast.
pub const CAPACITY: usize = 60;
/// Which host of its block the node itself is: the last one.
const ITSELF: u32 = 62;

/// A worker's block of 64 addresses, named by its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block(u32);

/// Why an address names no block.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{first} is not the first address of a /{SUBNET_PREFIX} of {of}")]
pub struct InvalidBlock {
    first: Ipv4Addr,
    of: Range,
}

impl Block {
    /// # Errors
    /// When `first` is outside the plan, or not the first of its 64.
    pub fn new(first: Ipv4Addr, plan: &Plan) -> Result<Self, InvalidBlock> {
        let bits = first.to_bits();
        if bits.is_multiple_of(64) && plan.containers().contains(first) {
            Ok(Self(bits))
        } else {
            Err(InvalidBlock { first, of: plan.containers() })
        }
    }

    #[must_use]
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0)
    }

    /// The containers' gateway: the first host.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 1)
    }

    /// Under which the node's own processes speak to services: the last host. Always the same one, so that a restart need
    /// not remember it and no container ever had it.
    #[must_use]
    pub fn itself(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + ITSELF)
    }

    fn containers(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.0 + 2..self.0 + ITSELF).map(Ipv4Addr::from_bits)
    }
}

/// A worker's block of 256 IPv6 addresses, named by its first. Which of them are in use is not counted here: each
/// container has the one that goes with its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block6(u128);

/// Why an address names no IPv6 block.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0} is not the first address of a /{SUBNET6_PREFIX} of fc00::/8")]
pub struct InvalidBlock6(Ipv6Addr);

impl Block6 {
    /// # Errors
    /// When `first` is outside the address plan, or not the first of its 256.
    pub fn new(first: Ipv6Addr) -> Result<Self, InvalidBlock6> {
        let bits = first.to_bits();
        let belongs = bits.is_multiple_of(256) && address::is_container6(first);
        if belongs { Ok(Self(bits)) } else { Err(InvalidBlock6(first)) }
    }

    #[must_use]
    pub fn first(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0)
    }

    /// The containers' gateway: the first host.
    #[must_use]
    pub fn gateway(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0 + 1)
    }

    /// The address at the same place of its block as `ns_ip`.
    #[must_use]
    pub fn beside(self, ns_ip: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0 + u128::from(ns_ip.to_bits() % 64))
    }
}

/// Through which address everything goes that whoever has this NsIP sends: for a container the gateway, for the node
/// itself, which is the gateway, one that nobody has, the first of the block.
#[must_use]
pub fn next_hop(ns_ip: IpAddr) -> IpAddr {
    match ns_ip {
        IpAddr::V4(ns_ip) => {
            let (first, host) = (ns_ip.to_bits() & !63, ns_ip.to_bits() & 63);
            Ipv4Addr::from_bits(first + u32::from(host != ITSELF)).into()
        }
        IpAddr::V6(ns_ip) => {
            let (first, host) = (ns_ip.to_bits() & !255, ns_ip.to_bits() & 255);
            Ipv6Addr::from_bits(first + u128::from(host != u128::from(ITSELF))).into()
        }
    }
}

/// The free addresses of a block, in the order in which they are given out: first those never used, then the one that
/// has been free for longest, so that what other nodes still remember of an address has the most time to fade.
#[derive(Debug, Clone)]
pub struct Pool {
    block: Block,
    free: VecDeque<Ipv4Addr>,
}

impl Pool {
    #[must_use]
    pub fn new(block: Block) -> Self {
        Self { block, free: block.containers().collect() }
    }

    /// The pool as it was before a restart: `order` is what [`Pool::order`] gave, `taken` the addresses in use. An
    /// address that is in neither is free; one that is in both is in use.
    #[must_use]
    pub fn restore(block: Block, order: &[Ipv4Addr], taken: &[Ipv4Addr]) -> Self {
        let all: Vec<_> = block.containers().filter(|address| !taken.contains(address)).collect();
        let mut free = VecDeque::with_capacity(CAPACITY);
        for address in order.iter().copied().filter(|address| all.contains(address)) {
            if !free.contains(&address) {
                free.push_back(address);
            }
        }
        for address in all {
            if !free.contains(&address) {
                free.push_back(address);
            }
        }
        Self { block, free }
    }

    #[must_use]
    pub fn block(&self) -> Block {
        self.block
    }

    /// `None`: all [`CAPACITY`] addresses are in use.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        self.free.pop_front()
    }

    /// Takes this very address. Says whether it was free.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        let place = self.free.iter().position(|free| *free == address);
        place.and_then(|place| self.free.remove(place)).is_some()
    }

    /// Gives an address back. One that is not of this block, or free already, is ignored.
    pub fn release(&mut self, address: Ipv4Addr) {
        if self.block.containers().any(|own| own == address) && !self.free.contains(&address) {
            self.free.push_back(address);
        }
    }

    /// The free addresses in their order, to be kept for [`Pool::restore`].
    #[must_use]
    pub fn order(&self) -> Vec<Ipv4Addr> {
        self.free.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use protocol::plan::Plan;

    use super::{Block, Block6, CAPACITY, Pool, next_hop};

    fn block() -> Block {
        Block::new(Ipv4Addr::new(10, 18, 0, 64), &Plan::default()).unwrap()
    }

    #[test]
    fn a_block_is_one_of_the_address_plan() {
        assert_eq!(block().gateway(), Ipv4Addr::new(10, 18, 0, 65));
        for wrong in ["10.18.0.1", "10.17.255.192", "10.30.0.0", "0.0.0.0", "192.0.2.0"] {
            assert!(
                Block::new(wrong.parse().unwrap(), &Plan::default()).is_err(),
                "{wrong} was taken for a block"
            );
        }
        assert!(Block::new("10.29.255.192".parse().unwrap(), &Plan::default()).is_ok());
    }

    #[test]
    fn a_containers_ipv6_address_is_at_the_same_place_of_the_other_block() {
        let block6 = Block6::new("fc00::2f:ff00".parse().unwrap()).unwrap();
        assert_eq!(block6.gateway().to_string(), "fc00::2f:ff01");
        assert_eq!(block6.beside(Ipv4Addr::new(10, 29, 255, 194)).to_string(), "fc00::2f:ff02");
        for wrong in ["fc00::1", "fd00::", "fdff::", "::", "2001:db8::100"] {
            assert!(Block6::new(wrong.parse().unwrap()).is_err(), "{wrong} was taken for a block");
        }
    }

    #[test]
    fn containers_come_after_the_gateway_and_are_60() {
        let mut pool = Pool::new(block());
        let given: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(given.len(), CAPACITY);
        assert_eq!(given[0], Ipv4Addr::new(10, 18, 0, 66));
        assert_eq!(given[CAPACITY - 1], Ipv4Addr::new(10, 18, 0, 125));
        assert_eq!(block().itself(), Ipv4Addr::new(10, 18, 0, 126));
    }

    #[test]
    fn the_node_itself_has_another_next_hop_than_its_containers() {
        let block6 = Block6::new("fc00::100".parse().unwrap()).unwrap();
        let itself = block().itself();
        for (ns_ip, hop) in [
            ("10.18.0.66", "10.18.0.65"),
            ("10.18.0.126", "10.18.0.64"),
            ("fc00::102", "fc00::101"),
            ("fc00::13e", "fc00::100"),
        ] {
            assert_eq!(next_hop(ns_ip.parse().unwrap()).to_string(), hop, "{ns_ip}");
        }
        assert_eq!(
            (itself.to_string(), block6.beside(itself).to_string()),
            ("10.18.0.126".into(), "fc00::13e".into())
        );
    }

    #[test]
    fn the_address_that_was_freed_first_is_given_first() {
        let mut pool = Pool::new(block());
        let given: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        pool.release(given[9]);
        pool.release(given[3]);
        assert_eq!(
            (pool.allocate(), pool.allocate(), pool.allocate()),
            (Some(given[9]), Some(given[3]), None)
        );
    }

    #[test]
    fn an_address_that_is_free_can_be_taken_once() {
        let mut pool = Pool::new(block());
        let address = Ipv4Addr::new(10, 18, 0, 70);
        assert!(pool.take(address));
        assert!(!pool.take(address) && !pool.take(Ipv4Addr::new(10, 18, 0, 65)));
        assert!(std::iter::from_fn(|| pool.allocate()).all(|given| given != address));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate,
        /// Of the addresses in use, this one (modulo their number).
        Release(usize),
        ReleaseForeign(u32),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Allocate),
            3 => any::<usize>().prop_map(Step::Release),
            1 => any::<u32>().prop_map(Step::ReleaseForeign),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn no_address_is_in_use_twice_and_none_is_lost(steps in proptest::collection::vec(step(), 0..300)) {
            let mut pool = Pool::new(block());
            let mut used: Vec<Ipv4Addr> = Vec::new();
            for step in steps {
                match step {
                    Step::Allocate => match pool.allocate() {
                        Some(address) => {
                            prop_assert!(!used.contains(&address), "{address} was given twice");
                            prop_assert!(address > block().gateway());
                            used.push(address);
                        }
                        None => prop_assert_eq!(used.len(), CAPACITY),
                    },
                    Step::Release(index) if !used.is_empty() => pool.release(used.swap_remove(index % used.len())),
                    Step::Release(_) => {}
                    Step::ReleaseForeign(bits) => {
                        let address = Ipv4Addr::from_bits(bits);
                        if !used.contains(&address) {
                            pool.release(address);
                        }
                    }
                    Step::Restart => pool = Pool::restore(block(), &pool.order(), &used),
                }
                let free: HashSet<_> = pool.order().into_iter().collect();
                prop_assert_eq!(free.len(), pool.order().len());
                prop_assert_eq!(free.len() + used.len(), CAPACITY);
            }
        }

        #[test]
        fn a_restored_pool_hands_out_only_free_addresses(
            order in proptest::collection::vec(any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(0x0a12_0040 + bits % 80)), 0..80),
            taken in proptest::collection::vec((66u8..126).prop_map(|last| Ipv4Addr::new(10, 18, 0, last)), 0..60),
        ) {
            let mut pool = Pool::restore(block(), &order, &taken);
            let given: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
            let distinct: HashSet<_> = given.iter().collect();
            let taken: HashSet<_> = taken.iter().collect();
            prop_assert_eq!(distinct.len(), given.len());
            prop_assert_eq!(given.len() + taken.len(), CAPACITY);
            prop_assert!(given.iter().all(|address| !taken.contains(address)));
        }
    }
}
