//! Blocks of worker addresses: a /26 of 10.18.0.0 to 10.29.255.255, and the /120 of IPv6 with the same number.

use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::address::{SUBNET_FIRST, SUBNET_LAST, SUBNET_PREFIX, SUBNET6_FIRST, SUBNET6_PREFIX};
use protocol::net::Subnet;

const SIZE: u32 = 1 << (32 - SUBNET_PREFIX);
/// How many blocks there are.
pub const COUNT: u32 = (SUBNET_LAST.to_bits() - SUBNET_FIRST.to_bits()) / SIZE + 1;

/// The block of this number; `None` past the last.
#[must_use]
pub fn block(number: u32) -> Option<Subnet> {
    (number < COUNT).then(|| Subnet {
        subnet_addr: Ipv4Addr::from_bits(SUBNET_FIRST.to_bits() + number * SIZE),
        subnet_addr_v6: Ipv6Addr::from_bits(
            SUBNET6_FIRST.to_bits() + (u128::from(number) << (128 - SUBNET6_PREFIX)),
        ),
    })
}

/// The number of the block that begins with this address.
#[must_use]
pub fn number(address: Ipv4Addr) -> Option<u32> {
    let distance = address.to_bits().checked_sub(SUBNET_FIRST.to_bits())?;
    Some(distance / SIZE).filter(|number| distance % SIZE == 0 && *number < COUNT)
}

#[cfg(test)]
mod tests {
    use super::{COUNT, block, number};

    #[test]
    fn blocks_run_from_the_first_to_the_last_of_the_plan() {
        let text = |number| {
            let block = block(number).unwrap();
            (block.subnet_addr.to_string(), block.subnet_addr_v6.to_string())
        };
        assert_eq!(COUNT, 12_288);
        assert_eq!(text(0), ("10.18.0.0".to_owned(), "fc00::".to_owned()));
        assert_eq!(text(1), ("10.18.0.64".to_owned(), "fc00::100".to_owned()));
        assert_eq!(text(COUNT - 1), ("10.29.255.192".to_owned(), "fc00::2f:ff00".to_owned()));
        assert_eq!(block(COUNT), None);
        assert_eq!(number([10, 18, 0, 64].into()), Some(1));
        assert_eq!(number([10, 29, 255, 192].into()), Some(COUNT - 1));
        for other in [[10, 18, 0, 65], [10, 17, 255, 192], [10, 30, 0, 0]] {
            assert_eq!(number(other.into()), None);
        }
    }
}
