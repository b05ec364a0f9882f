//! The stream of what the kernel side tells.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use netmanager_common::event::{MissRecord, SuspectRecord};
use netmanager_common::map::EVENTS;
use netmanager_common::wire::Ip;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::pin::PinDir;
use super::tables::{from_ip, table};
use super::{DatapathError, Event, Miss, Suspect};

/// Misses and suspects as they occur: see [`super::Datapath::events`].
#[derive(Debug)]
pub struct Events {
    ring: AsyncFd<Ring>,
}

/// aya's ring buffer, which has no `Debug`.
struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(EVENTS)
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Events {
    pub(super) fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        let ring = MapData::from_pin(pins.tables().join(EVENTS))
            .and_then(Map::from_map_data)
            .and_then(RingBuf::try_from)
            .map_err(table("open", EVENTS))?;
        // SAFETY: the descriptor belongs to the ring's map, which stays open, the same one, as long as the ring lives.
        let ring = unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) };
        let ring = ring.map_err(|error| reading(error.into()))?;
        Ok(Self { ring })
    }

    /// The next event. Cancel safe: what is not returned is still in the ring.
    pub async fn next(&mut self) -> Result<Event, DatapathError> {
        loop {
            let mut ready = self.ring.readable_mut().await.map_err(reading)?;
            while let Some(record) = ready.get_inner_mut().0.next() {
                if let Some(event) = decode(&record) {
                    return Ok(event);
                }
            }
            ready.clear_ready();
        }
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

fn reading(source: io::Error) -> DatapathError {
    DatapathError::Events { source }
}
