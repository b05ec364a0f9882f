//! Later fragments that have come before the first one of their datagram, which alone has the ports. They wait, bounded in
//! number, bytes and time. Pure.
//!
//! The first one goes through the programs like any packet, and nobody tells of it: while fragments wait, it is looked for
//! among those that the programs remember.

use std::time::{Duration, Instant};

use super::frame::Frame;
use super::hold::{Held, Hold};
use crate::datapath::Datagram;

/// How long a fragment waits: packets of one sender overtake each other by milliseconds, and its receiver asks the sender
/// for nothing before.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Ahead {
    held: Held<Datagram>,
    /// The next look; nothing while no fragment waits.
    due: Option<Instant>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { held: Held::new(PATIENCE), due: None }
    }
}

impl Ahead {
    pub(super) fn hold(&mut self, datagram: Datagram, frame: Frame, now: Instant) -> Hold {
        let hold = self.held.hold(datagram, frame, now);
        if hold != Hold::Full {
            self.due.get_or_insert(now + LOOK);
        }
        hold
    }

    /// When [`Self::look`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// The frames that may go on, since the first fragment of their datagram has come, and those that have waited too long.
    pub(super) fn look(
        &mut self,
        has_come: impl Fn(&Datagram) -> bool,
        now: Instant,
    ) -> (Vec<Frame>, Vec<Frame>) {
        let complete: Vec<_> = self.held.keys().filter(|datagram| has_come(datagram)).copied().collect();
        let released = complete.into_iter().flat_map(|datagram| self.held.release(datagram)).collect();
        let expired = self.held.expire(now);
        self.due = self.held.deadline().map(|_| now + LOOK);
        (released, expired)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Instant;

    use netmanager_common::punt::{Origin, Tag};

    use super::{Ahead, LOOK, PATIENCE};
    use crate::datapath::Datagram;
    use crate::slowpath::frame::Frame;
    use crate::slowpath::hold::Hold;

    fn datagram(identification: u32) -> Datagram {
        let [source, destination] = [IpAddr::from([10, 18, 0, 2]), IpAddr::from([10, 30, 0, 9])];
        Datagram { ifindex: 7, source, destination, identification, protocol: 17 }
    }

    fn frame(number: u8) -> Frame {
        let tag = Tag { origin: Origin::Container, reason: number, ifindex: 1 };
        Frame::read(&[&tag.bytes()[..], &[number; 60]].concat()).unwrap()
    }

    #[test]
    fn fragments_go_on_when_the_first_one_of_their_datagram_has_come() {
        let (mut ahead, now) = (Ahead::default(), Instant::now());
        assert_eq!(ahead.deadline(), None, "nothing waits, nothing is looked for");
        for (number, of) in [(1, 1), (2, 2), (3, 1)] {
            assert_ne!(ahead.hold(datagram(of), frame(number), now), Hold::Full);
        }
        assert_eq!(ahead.deadline(), Some(now + LOOK));
        assert_eq!(ahead.look(|_| false, now + LOOK), (vec![], vec![]));
        let found = ahead.look(|it| *it == datagram(1), now + 2 * LOOK);
        assert_eq!(found, (vec![frame(1), frame(3)], vec![]));
        assert_eq!(ahead.deadline(), Some(now + 3 * LOOK), "one waits");
        assert_eq!(ahead.look(|_| true, now + 3 * LOOK), (vec![frame(2)], vec![]));
        assert_eq!(ahead.deadline(), None);
    }

    #[test]
    fn whose_first_one_is_lost_waits_no_longer_than_a_second() {
        let (mut ahead, now) = (Ahead::default(), Instant::now());
        ahead.hold(datagram(1), frame(1), now);
        assert_eq!(ahead.look(|_| false, now + PATIENCE - LOOK), (vec![], vec![]));
        assert_eq!(ahead.look(|_| false, now + PATIENCE), (vec![], vec![frame(1)]));
        assert_eq!(ahead.deadline(), None);
    }
}
