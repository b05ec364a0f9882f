//! A frame as the driver has it, for XDP. Its memory is reached by pointers: the helpers that copy came with Linux 5.18.

use core::mem::size_of;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use netmanager_common::event::DropReason;
use netmanager_common::map::Unwrapped;
use netmanager_common::wire::{Ethernet, Wire};

/// A frame, Ethernet header first. `LONG`: it may lie in several buffers, of which only the first can be looked into.
pub(crate) struct Raw<const LONG: bool>(*mut xdp_md);

/// A value at an even address. Frames begin at one, their IP headers at a multiple of four only where the driver sees to it.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Even<T>(T);

impl<const LONG: bool> Raw<LONG> {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self(context.as_ptr().cast())
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        if LONG {
            // SAFETY: the helper takes the context that the kernel has handed over.
            #[expect(clippy::cast_possible_truncation, reason = "frames are short")]
            return unsafe { bpf_xdp_get_buff_len(self.0) } as u32;
        }
        #[expect(clippy::cast_possible_truncation, reason = "frames are short")]
        let length = self.end().wrapping_sub(self.start()) as u32;
        length
    }

    /// Where the frame begins.
    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the kernel hands over a valid context and maps this access.
        unsafe { (*self.0).data as usize }
    }

    /// Where its first buffer ends.
    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as in `start`.
        unsafe { (*self.0).data_end as usize }
    }

    /// Where what lies before the frame begins.
    #[inline(always)]
    fn metadata(&self) -> usize {
        // SAFETY: as in `start`.
        unsafe { (*self.0).data_meta as usize }
    }

    /// Copies out what lies at `offset`; nothing when the frame, or its first buffer, ends before.
    #[inline(always)]
    pub(crate) fn load<T: Wire>(&self, offset: u16) -> Option<T> {
        // SAFETY: within the bounds of the frame, and any bytes are a value (`Wire`).
        self.at::<T>(offset).map(|place| unsafe { (*place).0 })
    }

    /// Puts `mark` before the frame. `false` if the driver has no room for it; then nothing is changed.
    #[inline(always)]
    pub(crate) fn mark(&self, mark: &Unwrapped) -> bool {
        const SIZE: usize = size_of::<Unwrapped>();
        #[expect(clippy::cast_possible_truncation, reason = "32 bytes at most")]
        const ROOM: i32 = -(SIZE as i32);
        // SAFETY: the helper checks its arguments.
        if unsafe { bpf_xdp_adjust_meta(self.0, ROOM) } != 0 {
            return false;
        }
        let (start, end) = (self.metadata(), self.start());
        if start + SIZE > end {
            return false;
        }
        // SAFETY: within the bounds just compared, and aligned as the kernel demands.
        unsafe { *core::ptr::with_exposed_provenance_mut::<Unwrapped>(start) = *mark };
        true
    }

    /// Takes `overhead` bytes behind the Ethernet header away, which becomes `ethernet`. What lies before the frame moves
    /// along.
    #[inline(always)]
    pub(crate) fn unwrap(&self, overhead: u16, ethernet: Ethernet) -> Result<(), DropReason> {
        // SAFETY: the helper checks its arguments.
        if unsafe { bpf_xdp_adjust_head(self.0, overhead.into()) } != 0 {
            return Err(DropReason::KernelRefused);
        }
        let place = self.at::<Ethernet>(0).ok_or(DropReason::KernelRefused)?;
        // SAFETY: within the bounds of the frame.
        unsafe { (*place).0 = ethernet };
        Ok(())
    }

    #[inline(always)]
    fn at<T: Wire>(&self, offset: u16) -> Option<*mut Even<T>> {
        let (start, end) = (self.start() + usize::from(offset), self.end());
        if start + size_of::<T>() > end {
            return None;
        }
        Some(core::ptr::with_exposed_provenance_mut(start))
    }
}
