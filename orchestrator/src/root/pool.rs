//! The pool of ServiceIPs: those of the services' network whose third and fourth octet are at most 253, as Oakestra's are.
//!
//! One pool serves the services (one address each, and one more that leads to the closest instance if that is asked for)
//! and their instances (one each); authors may choose. An address that was freed is given out again last, so that
//! whoever still remembers it does not reach a stranger.
//!
//! IPv6 addresses are not given out one by one: each goes with an IPv4 one. Only those that authors chose are counted.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocol::plan::{Range, SERVICE_OCTET};

/// Values of the third and the fourth octet.
const OCTET: usize = SERVICE_OCTET as usize + 1;

/// The addresses of a services' network that are given out, each with its place in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given(Range);

impl Given {
    /// Of the services of a plan: a network of at least whole third octets, within two octets.
    #[must_use]
    pub fn of(services: Range) -> Self {
        Self(services)
    }

    fn size(self) -> usize {
        let [_, _, first, _] = self.0.first().octets();
        let [_, _, last, _] = self.0.last().octets();
        (usize::from(last.min(SERVICE_OCTET)) + 1 - usize::from(first)) * OCTET
    }

    /// Whether an address may be given out.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.index(address).is_some()
    }

    fn index(self, address: Ipv4Addr) -> Option<usize> {
        let first = place(self.0.first())?;
        place(address).filter(|_| self.0.contains(address)).map(|place| place - first)
    }

    fn address(self, index: usize) -> Ipv4Addr {
        let first = self.0.first();
        at(first, place(first).unwrap_or_default() + index)
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}, octets up to {SERVICE_OCTET}", self.0.first(), self.address(self.size() - 1))
    }
}

/// Which addresses are taken.
#[derive(Debug)]
pub struct Pool {
    given: Given,
    taken: Vec<bool>,
    free: usize,
    /// Where the search for a free one begins.
    next: usize,
    chosen_v6: HashSet<Ipv6Addr>,
}

/// Why an address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("all {0} service addresses are taken")]
    Exhausted(usize),
    #[error("{0} is taken by another service")]
    Taken(IpAddr),
    #[error("{0} is no service address: expected {1}")]
    Foreign(Ipv4Addr, Given),
}

impl Pool {
    /// One of these addresses, with none taken.
    #[must_use]
    pub fn new(given: Given) -> Self {
        let size = given.size();
        Self { given, taken: vec![false; size], free: size, next: 0, chosen_v6: HashSet::new() }
    }

    /// The pool in which these are taken; foreign ones are ignored.
    pub fn of_taken(given: Given, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut pool = Self::new(given);
        for address in addresses {
            if pool.reserve(address).is_ok()
                && let IpAddr::V4(address) = address
            {
                // Goes on after the highest, as the search before the restart did unless it had come around.
                pool.next = pool.next.max(given.index(address).map_or(0, |taken| taken + 1));
            }
        }
        pool.next %= pool.taken.len();
        pool
    }

    /// Takes a free address.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`].
    pub fn take(&mut self) -> Result<Ipv4Addr, PoolError> {
        let size = self.taken.len();
        let found = (self.next..size).chain(0..self.next).find(|index| !self.taken[*index]);
        let index = found.ok_or(PoolError::Exhausted(size))?;
        self.taken[index] = true;
        self.free -= 1;
        self.next = (index + 1) % size;
        Ok(self.given.address(index))
    }

    /// Takes this address. Which IPv6 addresses may be chosen is the rules' business.
    ///
    /// # Errors
    /// When it is taken or does not belong to the pool.
    pub fn reserve(&mut self, address: IpAddr) -> Result<(), PoolError> {
        let is_free = match address {
            IpAddr::V6(address) => self.chosen_v6.insert(address),
            IpAddr::V4(address) => {
                let index = self.given.index(address).ok_or(PoolError::Foreign(address, self.given))?;
                let is_free = !std::mem::replace(&mut self.taken[index], true);
                self.free -= usize::from(is_free);
                is_free
            }
        };
        if is_free { Ok(()) } else { Err(PoolError::Taken(address)) }
    }

    /// Gives an address back; one that is not taken is left as it is.
    pub fn release(&mut self, address: IpAddr) {
        match address {
            IpAddr::V6(address) => {
                self.chosen_v6.remove(&address);
            }
            IpAddr::V4(address) => {
                if let Some(index) = self.given.index(address)
                    && std::mem::take(&mut self.taken[index])
                {
                    self.free += 1;
                }
            }
        }
    }

    /// Whether somebody has this address.
    #[must_use]
    pub fn is_taken(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.given.index(address).is_some_and(|index| self.taken[index]),
            IpAddr::V6(address) => self.chosen_v6.contains(&address),
        }
    }

    #[must_use]
    pub fn free(&self) -> usize {
        self.free
    }
}

/// The address that is `steps` after `start`, which leaves out the octets that no pool has; nothing past the last with the
/// same first two, or if `start` is none of a pool.
#[must_use]
pub fn after(start: Ipv4Addr, steps: u32) -> Option<Ipv4Addr> {
    let place = place(start)?.checked_add(usize::try_from(steps).ok()?)?;
    (place < OCTET * OCTET).then(|| at(start, place))
}

/// Where an address is among those with the same first two octets.
fn place(address: Ipv4Addr) -> Option<usize> {
    let [_, _, third, fourth] = address.octets().map(usize::from);
    (third < OCTET && fourth < OCTET).then_some(third * OCTET + fourth)
}

fn at(like: Ipv4Addr, place: usize) -> Ipv4Addr {
    let [first, second, ..] = like.octets();
    let octet =
        |value: usize| u8::try_from(value).expect("a place below OCTET * OCTET has octets below OCTET");
    Ipv4Addr::new(first, second, octet(place / OCTET), octet(place % OCTET))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use protocol::plan::{Plan, Range};

    use super::{Given, OCTET, Pool, PoolError, after};

    const SIZE: usize = OCTET * OCTET;

    fn given() -> Given {
        Given::of(Plan::default().services())
    }

    #[test]
    fn addresses_are_given_out_in_turn_from_the_first() {
        let mut pool = Pool::new(given());
        assert_eq!(pool.take(), Ok(Ipv4Addr::new(10, 30, 0, 0)));
        for _ in 1..254 {
            pool.take().unwrap();
        }
        assert_eq!(pool.take(), Ok(Ipv4Addr::new(10, 30, 1, 0)), "octets 254 and 255 are left out");
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut pool = Pool::new(given());
        let first = pool.take().unwrap();
        pool.release(first.into());
        for _ in 0..SIZE - 1 {
            assert_ne!(pool.take().unwrap(), first);
        }
        assert_eq!(pool.take(), Ok(first));
        assert_eq!(pool.take(), Err(PoolError::Exhausted(SIZE)));
    }

    #[test]
    fn foreign_addresses_are_refused() {
        for foreign in [[10, 31, 0, 0], [10, 30, 254, 0], [10, 30, 0, 255], [192, 168, 0, 1]] {
            let foreign = Ipv4Addr::from(foreign);
            assert!(!given().contains(foreign));
            assert_eq!(Pool::new(given()).reserve(foreign.into()), Err(PoolError::Foreign(foreign, given())));
        }
    }

    #[test]
    fn chosen_ipv6_addresses_have_one_owner_each() {
        let chosen: IpAddr = "fdff:1000::1:1".parse().unwrap();
        let mut pool = Pool::of_taken(given(), [chosen]);
        assert_eq!(pool.reserve(chosen), Err(PoolError::Taken(chosen)));
        assert!(pool.is_taken(chosen));
        pool.release(chosen);
        assert_eq!(pool.reserve(chosen), Ok(()));
        assert_eq!(pool.free(), SIZE, "they are none of the pool's IPv4 addresses");
    }

    #[test]
    fn addresses_in_turn_leave_out_the_octets_that_the_pool_leaves_out() {
        let start = Ipv4Addr::new(10, 30, 1, 252);
        assert_eq!(after(start, 1), Some(Ipv4Addr::new(10, 30, 1, 253)));
        assert_eq!(after(start, 2), Some(Ipv4Addr::new(10, 30, 2, 0)));
        assert_eq!(after(Ipv4Addr::new(10, 30, 253, 253), 1), None);
        assert_eq!(after(Ipv4Addr::new(10, 30, 254, 1), 0), None);
    }

    #[test]
    fn a_smaller_network_gives_its_own_addresses_and_no_others() {
        let services: Range = "192.168.252.0/22".parse().unwrap();
        let given = Given::of(services);
        let mut pool = Pool::new(given);
        assert_eq!(pool.free(), 2 * OCTET, "of third octets 254 and 255 there are none");
        let taken: HashSet<_> = (0..2 * OCTET).map(|_| pool.take().unwrap()).collect();
        assert_eq!(taken.len(), 2 * OCTET);
        assert!(taken.iter().all(|address| services.contains(*address)));
        assert_eq!(pool.take(), Err(PoolError::Exhausted(2 * OCTET)));
        assert_eq!(given.to_string(), "192.168.252.0 to 192.168.253.253, octets up to 253");
        assert!(!given.contains([192, 168, 251, 1].into()));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Reserve(usize),
        Release(usize),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Take),
            2 => (0..64_usize).prop_map(Step::Reserve),
            2 => (0..64_usize).prop_map(Step::Release),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_address_has_two_owners(steps in prop::collection::vec(step(), 0..80)) {
            let mut pool = Pool::new(given());
            let mut owned = HashSet::new();
            for step in steps {
                match step {
                    Step::Take => prop_assert!(owned.insert(pool.take().unwrap())),
                    Step::Reserve(index) => {
                        prop_assert_eq!(pool.reserve(given().address(index).into()).is_ok(), owned.insert(given().address(index)));
                    }
                    Step::Release(index) => {
                        pool.release(given().address(index).into());
                        owned.remove(&given().address(index));
                    }
                    Step::Restart => pool = Pool::of_taken(given(), owned.iter().copied().map(IpAddr::V4)),
                }
                prop_assert_eq!(pool.free(), SIZE - owned.len());
            }
        }
    }
}
