//! What has been learned, and for how long it is believed. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::TooBig;

/// After how long a larger packet is tried again (RFC 1191, 6.3: 10 minutes).
const LIFETIME: Duration = Duration::from_secs(600);
/// What every link carries (RFC 791, RFC 8200). Whoever says less is not believed.
const LEAST: u16 = 576;
const LEAST_V6: u16 = 1280;
/// What is tried when a router does not say how much it carries (RFC 1191, 7.1).
const PLATEAUS: [u16; 4] = [1492, 1400, 1006, LEAST];
/// Nodes of which something is known at one time.
const MOST: usize = 4096;

/// The least that a path to this address carries.
pub(super) const fn least(node: IpAddr) -> u16 {
    if node.is_ipv4() { LEAST } else { LEAST_V6 }
}

#[derive(Debug, Default)]
pub(super) struct Learned {
    paths: BTreeMap<IpAddr, Path>,
}

#[derive(Debug)]
struct Path {
    mtu: u16,
    until: Instant,
}

impl Learned {
    /// What the path to the report's receiver is to be taken for, if that has changed. The sender and the receiver have
    /// been checked. A path only becomes wider by time.
    pub(super) fn hear(&mut self, report: &TooBig, uplink_mtu: u32, now: Instant) -> Option<u16> {
        let node = report.receiver.ip();
        let mtu = match report.mtu {
            0 => *PLATEAUS.iter().find(|plateau| **plateau < report.length)?,
            mtu => mtu,
        };
        // Whoever has truly dropped the packet carries less than it was long.
        if mtu < least(node) || mtu >= report.length || u32::from(mtu) >= uplink_mtu {
            return None;
        }
        self.narrow(node, mtu, now)
    }

    /// The path to `node` carries `mtu` bytes and no more. Gives what it is to be taken for, if that has changed.
    pub(super) fn narrow(&mut self, node: IpAddr, mtu: u16, now: Instant) -> Option<u16> {
        let until = now + LIFETIME;
        match self.paths.get_mut(&node) {
            Some(path) if path.mtu < mtu => None,
            Some(path) => {
                path.until = until;
                (std::mem::replace(&mut path.mtu, mtu) != mtu).then_some(mtu)
            }
            None => {
                if self.paths.len() >= MOST {
                    return None;
                }
                self.paths.insert(node, Path { mtu, until });
                Some(mtu)
            }
        }
    }

    /// What the path to `node` is taken for; nothing if for as wide as the uplink.
    pub(super) fn mtu(&self, node: IpAddr) -> Option<u16> {
        self.paths.get(&node).map(|path| path.mtu)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.paths.values().map(|path| path.until).min()
    }

    /// The nodes to which the whole MTU of the uplink is to be tried again.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        self.paths.extract_if(.., |_, path| path.until <= now).map(|(node, _)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::{Duration, Instant};

    use super::{LIFETIME, Learned};
    use crate::pathmtu::TooBig;

    const UPLINK: u32 = 1500;
    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const NODE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

    fn report(node: IpAddr, mtu: u16, length: u16) -> TooBig {
        TooBig {
            sender: Ipv4Addr::new(192, 0, 2, 1).into(),
            receiver: SocketAddr::new(node, 50103),
            mtu,
            length,
        }
    }

    #[test]
    fn a_path_becomes_narrower_by_reports_and_wider_by_time() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        assert_eq!(learned.hear(&report(NODE, 1400, 1478), UPLINK, now), Some(1400));
        assert_eq!(learned.hear(&report(NODE, 1400, 1478), UPLINK, now), None, "known");
        assert_eq!(learned.hear(&report(NODE, 1450, 1478), UPLINK, now), None, "wider");
        let later = now + Duration::from_secs(60);
        assert_eq!(learned.hear(&report(NODE, 1280, 1400), UPLINK, later), Some(1280));
        assert_eq!(learned.mtu(NODE), Some(1280));
        assert_eq!(learned.deadline(), Some(later + LIFETIME));
        assert_eq!(learned.expire(now + LIFETIME), [] as [IpAddr; 0]);
        assert_eq!(learned.expire(later + LIFETIME), [NODE]);
        assert_eq!(learned.deadline(), None);
    }

    #[test]
    fn what_no_router_would_say_is_not_believed() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        for (node, mtu, length) in [
            (NODE, 575, 1478),
            (NODE6, 1279, 1478),
            (NODE, 1478, 1478),
            (NODE, 1400, 1300),
            (NODE, 1500, 9000),
            (NODE, 9000, 9001),
            (NODE, 0, 576),
        ] {
            assert_eq!(
                learned.hear(&report(node, mtu, length), UPLINK, now),
                None,
                "{mtu} of {length} to {node}"
            );
        }
    }

    #[test]
    fn of_a_router_that_does_not_say_how_much_the_next_lower_usual_size_is_tried() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        assert_eq!(learned.hear(&report(NODE, 0, 1478), UPLINK, now), Some(1400));
        assert_eq!(learned.hear(&report(NODE, 0, 1400), UPLINK, now), Some(1006));
    }
}
