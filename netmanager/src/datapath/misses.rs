//! The stream of misses.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use netmanager_common::event::MissRecord;
use netmanager_common::map::EVENTS;
use netmanager_common::wire::Ip;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::pin::PinDir;
use super::tables::{from_ip, table};
use super::{DatapathError, Miss};

/// Misses as they occur: see [`super::Datapath::misses`].
#[derive(Debug)]
pub struct Misses {
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

impl Misses {
    pub(super) fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        let ring = MapData::from_pin(pins.tables().join(EVENTS))
            .and_then(Map::from_map_data)
            .and_then(RingBuf::try_from)
            .map_err(table("open", EVENTS))?;
        // SAFETY: the descriptor belongs to the ring's map, which stays open, the same one, as long as the ring lives.
        let ring = unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) };
        let ring = ring.map_err(|error| events(error.into()))?;
        Ok(Self { ring })
    }

    /// The next miss. Cancel safe: what is not returned is still in the ring.
    pub async fn next(&mut self) -> Result<Miss, DatapathError> {
        loop {
            let mut ready = self.ring.readable_mut().await.map_err(events)?;
            while let Some(record) = ready.get_inner_mut().0.next() {
                if let Some(miss) = decode(&record) {
                    return Ok(miss);
                }
            }
            ready.clear_ready();
        }
    }
}

/// A record, read by the layout of [`MissRecord`]. One of another length is not ours.
fn decode(record: &[u8]) -> Option<Miss> {
    const _: () = assert!(std::mem::offset_of!(MissRecord, ns_ip) == size_of::<Ip>());
    const _: () = assert!(size_of::<MissRecord>() == 2 * size_of::<Ip>());
    let (&service_ip, rest) = record.split_first_chunk()?;
    let ns_ip = rest.try_into().ok()?;
    let address = |octets| from_ip(Ip::from_octets(octets));
    Some(Miss { service_ip: address(service_ip), ns_ip: address(ns_ip) })
}

fn events(source: io::Error) -> DatapathError {
    DatapathError::Events { source }
}
