//! The TAP device between the programs and this process. It lives as long as this does.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun_tap::{Iface, Mode};

use super::frame::Frame;
use crate::userspace::PuntQueue;

/// Its name. Not with the prefix of the links of containers, for which there are rules.
pub(super) const NAME: &str = "tap-hypha";
/// What GRO has merged is split by the kernel before it comes here, so this is more than any frame has.
const LARGEST: usize = 65_536;

/// Where frames come from and go to.
pub(super) enum Device {
    Kernel(TapDevice),
    /// The data plane is in this process.
    Process(PuntQueue),
}

pub(super) struct TapDevice {
    tap: AsyncFd<Tap>,
    buffer: Box<[u8]>,
}

struct Tap(Iface);

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Device {
    /// The next frame. Cancel safe.
    pub(super) async fn read(&mut self) -> io::Result<Option<Frame>> {
        match self {
            Self::Kernel(device) => device.read().await.map(Frame::read),
            Self::Process(queue) => Ok(Frame::read(&queue.read().await)),
        }
    }

    /// Gives a frame to the data plane, at once.
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Kernel(device) => device.write(frame),
            Self::Process(queue) => {
                queue.write(frame);
                Ok(())
            }
        }
    }
}

impl TapDevice {
    /// Makes the device in the network namespace of the calling thread, which must be in a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let tap = Iface::without_packet_info(NAME, Mode::Tap)?;
        tap.set_non_blocking()?;
        // SAFETY: the descriptor is the interface's own, which stays open, the same one, as long as this value lives.
        let tap = unsafe { AsyncFd::register_with_interest(Tap(tap), Interest::READABLE) };
        Ok(Self { tap: tap.map_err(io::Error::from)?, buffer: vec![0; LARGEST].into_boxed_slice() })
    }

    async fn read(&mut self) -> io::Result<&[u8]> {
        let buffer = &mut self.buffer;
        let length = self.tap.async_io(Interest::READABLE, |tap| tap.0.recv(buffer)).await?;
        Ok(&self.buffer[..length])
    }

    fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.tap.get_ref().0.send(frame).map(drop)
    }
}
