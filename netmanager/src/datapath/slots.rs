//! Which uplink has which place in the table's row of the node. Rows of backends name places, so an uplink keeps its own
//! for as long as it is one. Pure.

use netmanager_common::map::MAX_UPLINKS;

/// Interfaces by their places; 0 is a free one.
pub(crate) type Slots = [u32; MAX_UPLINKS];

/// The places of `wanted`, the most important first: those that have one keep it, the others get the lowest free ones, as
/// long as there are some.
pub(crate) fn assign(before: Slots, wanted: impl IntoIterator<Item = u32>) -> Slots {
    let mut chosen: Vec<u32> = Vec::new();
    for ifindex in wanted {
        if ifindex != 0 && !chosen.contains(&ifindex) && chosen.len() < MAX_UPLINKS {
            chosen.push(ifindex);
        }
    }
    let mut slots = before.map(|ifindex| if chosen.contains(&ifindex) { ifindex } else { 0 });
    for ifindex in chosen {
        if of(&slots, ifindex).is_none()
            && let Some(free) = slots.iter_mut().find(|slot| **slot == 0)
        {
            *free = ifindex;
        }
    }
    slots
}

/// The place of an interface.
#[expect(clippy::cast_possible_truncation, reason = "places are few")]
pub(crate) fn of(slots: &Slots, ifindex: u32) -> Option<u8> {
    slots.iter().position(|slot| *slot == ifindex && ifindex != 0).map(|place| place as u8)
}

/// The interfaces that have a place.
pub(crate) fn taken(slots: &Slots) -> impl Iterator<Item = u32> + use<> {
    let slots = *slots;
    slots.into_iter().filter(|ifindex| *ifindex != 0)
}

#[cfg(test)]
mod tests {
    use super::{assign, of};

    #[test]
    fn an_uplink_keeps_its_place_and_the_most_important_get_one() {
        let first = assign([0; 8], [7, 9]);
        assert_eq!(first, [7, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(assign(first, [9, 7, 7]), first, "in whatever order");
        let second = assign(first, [9, 4]);
        assert_eq!(second, [4, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!((of(&second, 9), of(&second, 7), of(&second, 0)), (Some(1), None, None));
        let full = assign(second, 9..30);
        assert_eq!(full[1], 9);
        assert!((9..17).all(|ifindex| full.contains(&ifindex)), "{full:?}");
    }
}
