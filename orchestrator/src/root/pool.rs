//! The pool of ServiceIPs: 10.30.0.0 to 10.30.253.253, third and fourth octet in 0..=253.
//!
//! One pool serves the services (one address each, and one more that leads to the closest instance if that is asked for)
//! and their instances (one each); authors may choose. An address that was freed is given out again last, so that
//! whoever still remembers it does not reach a stranger.
//!
//! IPv6 addresses are not given out one by one: each goes with an IPv4 one. Only those that authors chose are counted.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocol::address::{SERVICE_FIRST, SERVICE_LAST};

/// Values of the third and the fourth octet.
const OCTET: usize = SERVICE_LAST.octets()[3] as usize + 1;
const SIZE: usize = OCTET * OCTET;

/// Which addresses are taken.
#[derive(Debug)]
pub struct Pool {
    taken: Vec<bool>,
    free: usize,
    /// Where the search for a free one begins.
    next: usize,
    chosen_v6: HashSet<Ipv6Addr>,
}

/// Why an address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("all {SIZE} service addresses are taken")]
    Exhausted,
    #[error("{0} is taken by another service")]
    Taken(IpAddr),
    #[error("{0} is no service address: expected {SERVICE_FIRST} to {SERVICE_LAST}, octets up to 253")]
    Foreign(Ipv4Addr),
}

impl Default for Pool {
    fn default() -> Self {
        Self { taken: vec![false; SIZE], free: SIZE, next: 0, chosen_v6: HashSet::new() }
    }
}

impl Pool {
    /// The pool in which these are taken; foreign ones are ignored.
    pub fn of_taken(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut pool = Self::default();
        for address in addresses {
            if pool.reserve(address).is_ok()
                && let IpAddr::V4(address) = address
            {
                // Goes on after the highest, as the search before the restart did unless it had come around.
                pool.next = pool.next.max(index(address).map_or(0, |taken| taken + 1));
            }
        }
        pool.next %= SIZE;
        pool
    }

    /// Takes a free address.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`].
    pub fn take(&mut self) -> Result<Ipv4Addr, PoolError> {
        let found = (self.next..SIZE).chain(0..self.next).find(|index| !self.taken[*index]);
        let index = found.ok_or(PoolError::Exhausted)?;
        self.taken[index] = true;
        self.free -= 1;
        self.next = (index + 1) % SIZE;
        Ok(address(index))
    }

    /// Takes this address. Which IPv6 addresses may be chosen is the rules' business.
    ///
    /// # Errors
    /// When it is taken or does not belong to the pool.
    pub fn reserve(&mut self, address: IpAddr) -> Result<(), PoolError> {
        let is_free = match address {
            IpAddr::V6(address) => self.chosen_v6.insert(address),
            IpAddr::V4(address) => {
                let index = index(address).ok_or(PoolError::Foreign(address))?;
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
                if let Some(index) = index(address)
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
            IpAddr::V4(address) => index(address).is_some_and(|index| self.taken[index]),
            IpAddr::V6(address) => self.chosen_v6.contains(&address),
        }
    }

    #[must_use]
    pub fn free(&self) -> usize {
        self.free
    }
}

/// Whether an address belongs to the pool, taken or not.
#[must_use]
pub fn contains(address: Ipv4Addr) -> bool {
    index(address).is_some()
}

/// The address that is `steps` after `start` in the pool; nothing past the last.
#[must_use]
pub fn after(start: Ipv4Addr, steps: u32) -> Option<Ipv4Addr> {
    let index = index(start)?.checked_add(usize::try_from(steps).ok()?)?;
    (index < SIZE).then(|| address(index))
}

fn index(address: Ipv4Addr) -> Option<usize> {
    let [first, second, third, fourth] = address.octets();
    let (third, fourth) = (usize::from(third), usize::from(fourth));
    let belongs = [first, second] == [SERVICE_FIRST.octets()[0], SERVICE_FIRST.octets()[1]]
        && third < OCTET
        && fourth < OCTET;
    belongs.then_some(third * OCTET + fourth)
}

fn address(index: usize) -> Ipv4Addr {
    let [first, second, ..] = SERVICE_FIRST.octets();
    let octet = |value: usize| u8::try_from(value).expect("an index below SIZE has octets below OCTET");
    Ipv4Addr::new(first, second, octet(index / OCTET), octet(index % OCTET))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::{Pool, PoolError, SIZE, address, after, contains};

    #[test]
    fn addresses_are_given_out_in_turn_from_the_first() {
        let mut pool = Pool::default();
        assert_eq!(pool.take(), Ok(Ipv4Addr::new(10, 30, 0, 0)));
        for _ in 1..254 {
            pool.take().unwrap();
        }
        assert_eq!(pool.take(), Ok(Ipv4Addr::new(10, 30, 1, 0)), "octets 254 and 255 are left out");
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut pool = Pool::default();
        let first = pool.take().unwrap();
        pool.release(first.into());
        for _ in 0..SIZE - 1 {
            assert_ne!(pool.take().unwrap(), first);
        }
        assert_eq!(pool.take(), Ok(first));
        assert_eq!(pool.take(), Err(PoolError::Exhausted));
    }

    #[test]
    fn foreign_addresses_are_refused() {
        for foreign in [[10, 31, 0, 0], [10, 30, 254, 0], [10, 30, 0, 255], [192, 168, 0, 1]] {
            let foreign = Ipv4Addr::from(foreign);
            assert!(!contains(foreign));
            assert_eq!(Pool::default().reserve(foreign.into()), Err(PoolError::Foreign(foreign)));
        }
    }

    #[test]
    fn chosen_ipv6_addresses_have_one_owner_each() {
        let chosen: IpAddr = "fdff:1000::1:1".parse().unwrap();
        let mut pool = Pool::of_taken([chosen]);
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
        assert_eq!(after(Ipv4Addr::new(10, 18, 0, 1), 0), None);
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
            let mut pool = Pool::default();
            let mut owned = HashSet::new();
            for step in steps {
                match step {
                    Step::Take => prop_assert!(owned.insert(pool.take().unwrap())),
                    Step::Reserve(index) => {
                        prop_assert_eq!(pool.reserve(address(index).into()).is_ok(), owned.insert(address(index)));
                    }
                    Step::Release(index) => {
                        pool.release(address(index).into());
                        owned.remove(&address(index));
                    }
                    Step::Restart => pool = Pool::of_taken(owned.iter().copied().map(IpAddr::V4)),
                }
                prop_assert_eq!(pool.free(), SIZE - owned.len());
            }
        }
    }
}
