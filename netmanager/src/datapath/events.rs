//! The stream of what the kernel side tells.

use netmanager_common::event::{MissRecord, SuspectRecord};
use netmanager_common::map::EVENTS;
use netmanager_common::wire::Ip;

use super::pin::PinDir;
use super::ring::Records;
use super::tables::from_ip;
use super::{DatapathError, Event, Miss, Suspect};

/// Misses and suspects as they occur: see [`super::Datapath::events`].
#[derive(Debug)]
pub struct Events(Records);

impl Events {
    pub(super) fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Records::open(pins, EVENTS).map(Self)
    }

    /// The next event. Cancel safe: what is not returned is still in the ring.
    pub async fn next(&mut self) -> Result<Event, DatapathError> {
        self.0.next(decode).await
    }
}

/// A record, read by the layout that its length tells. One of another length is not ours.
pub(super) fn decode(record: &[u8]) -> Option<Event> {
    const MISS: usize = size_of::<MissRecord>();
    const SUSPECT: usize = size_of::<SuspectRecord>();
    const _: () = assert!(std::mem::offset_of!(MissRecord, ns_ip) == size_of::<Ip>());
    const _: () = assert!(size_of::<MissRecord>() == 2 * size_of::<Ip>());
    const _: () = assert!(std::mem::offset_of!(SuspectRecord, generation) == 4);
    match record.len() {
        MISS => {
            let (&service_ip, rest) = record.split_first_chunk()?;
            let ns_ip = rest.try_into().ok()?;
            let address = |octets| from_ip(Ip::from_octets(octets));
            Some(Event::Miss(Miss { service_ip: address(service_ip), ns_ip: address(ns_ip) }))
        }
        SUSPECT => {
            let (&number, rest) = record.split_first_chunk()?;
            let (number, generation) =
                (u32::from_ne_bytes(number), u32::from_ne_bytes(rest.try_into().ok()?));
            Some(Event::Suspect(Suspect { number, generation }))
        }
        _ => None,
    }
}
