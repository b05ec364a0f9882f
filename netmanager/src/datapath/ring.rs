//! Reading a ring buffer that is pinned.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::DatapathError;
use super::pin::PinDir;
use super::tables::table;

/// Records of a ring, one after another.
#[derive(Debug)]
pub(super) struct Records(AsyncFd<Ring>);

/// aya's ring buffer, which has no `Debug`.
struct Ring {
    name: &'static str,
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Records {
    /// Call within a tokio runtime.
    pub(super) fn open(pins: &PinDir, name: &'static str) -> Result<Self, DatapathError> {
        let ring = MapData::from_pin(pins.tables().join(name))
            .and_then(Map::from_map_data)
            .and_then(RingBuf::try_from)
            .map_err(table("open", name))?;
        // SAFETY: the descriptor belongs to the ring's map, which stays open, the same one, as long as the ring lives.
        let ring = unsafe { AsyncFd::register_with_interest(Ring { name, ring }, Interest::READABLE) };
        ring.map(Self).map_err(|error| reading(error.into()))
    }

    /// Throws away what nobody has read.
    pub(super) fn discard(&mut self) {
        while self.0.get_mut().ring.next().is_some() {}
    }

    /// The next one that `decode` understands. Cancel safe: what is not returned is still in the ring.
    pub(super) async fn next<T>(&mut self, decode: impl Fn(&[u8]) -> Option<T>) -> Result<T, DatapathError> {
        loop {
            let mut ready = self.0.readable_mut().await.map_err(reading)?;
            while let Some(record) = ready.get_inner_mut().ring.next() {
                if let Some(event) = decode(&record) {
                    return Ok(event);
                }
            }
            ready.clear_ready();
        }
    }
}

fn reading(source: io::Error) -> DatapathError {
    DatapathError::Events { source }
}
