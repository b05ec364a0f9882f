//! Blocks of worker addresses: a /26 of the plan's containers, and the /120 of IPv6 with the same number.

use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::address::{SUBNET_PREFIX, SUBNET6_FIRST, SUBNET6_PREFIX};
use protocol::net::Subnet;
use protocol::plan::Plan;

const SIZE: u32 = 1 << (32 - SUBNET_PREFIX);

/// How many blocks there are.
#[must_use]
pub fn count(plan: &Plan) -> u32 {
    let containers = plan.containers();
    (containers.last().to_bits() - containers.first().to_bits()) / SIZE + 1
}

/// The block of this number; `None` past the last.
#[must_use]
pub fn block(number: u32, plan: &Plan) -> Option<Subnet> {
    (number < count(plan)).then(|| Subnet {
        subnet_addr: Ipv4Addr::from_bits(plan.containers().first().to_bits() + number * SIZE),
        subnet_addr_v6: Ipv6Addr::from_bits(
            SUBNET6_FIRST.to_bits() + (u128::from(number) << (128 - SUBNET6_PREFIX)),
        ),
        plan: *plan,
    })
}

/// The number of the block that begins with this address.
#[must_use]
pub fn number(address: Ipv4Addr, plan: &Plan) -> Option<u32> {
    let distance = address.to_bits().checked_sub(plan.containers().first().to_bits())?;
    Some(distance / SIZE).filter(|number| distance % SIZE == 0 && *number < count(plan))
}

#[cfg(test)]
mod tests {
    use protocol::plan::Plan;

    use super::{block, count, number};

    #[test]
    fn blocks_run_from_the_first_to_the_last_of_the_plan() {
        let elsewhere =
            Plan::new("172.20.0.0/25".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap();
        for (plan, last, blocks) in [
            (
                Plan::default(),
                12_287,
                [("10.18.0.0", "fc00::"), ("10.18.0.64", "fc00::100"), ("10.29.255.192", "fc00::2f:ff00")],
            ),
            (
                elsewhere,
                1,
                [("172.20.0.0", "fc00::"), ("172.20.0.64", "fc00::100"), ("172.20.0.64", "fc00::100")],
            ),
        ] {
            assert_eq!(count(&plan), last + 1);
            assert_eq!(block(last + 1, &plan), None);
            for (at, (v4, v6)) in [0, 1, last].into_iter().zip(blocks) {
                let block = block(at, &plan).unwrap();
                assert_eq!(
                    (block.subnet_addr.to_string(), block.subnet_addr_v6.to_string()),
                    (v4.into(), v6.into())
                );
                assert_eq!((number(block.subnet_addr, &plan), block.plan), (Some(at), plan));
            }
        }
        for other in [[10, 18, 0, 65], [10, 17, 255, 192], [10, 30, 0, 0]] {
            assert_eq!(number(other.into(), &Plan::default()), None);
        }
    }
}
