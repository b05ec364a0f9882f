//! Memory that the process has taken and does not need any more.

/// Gives back to the kernel what lies free in the heap. Loading the programs takes some megabytes, for the kernel's types above
/// all, in pieces between which others stay in use, so that the allocator keeps all of it: most of what an idle daemon would
/// have. Where the C library is not glibc, nothing is done.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the function takes the allocator's own locks, and touches only what nobody has.
        let is_less = unsafe { libc::malloc_trim(0) } == 1;
        tracing::debug!(is_less, "what loading has taken is given back");
    }
}
