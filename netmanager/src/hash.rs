//! A hash that is the same in each release and on each machine, unlike the standard library's: names of links and
//! choices among instances follow from it.

/// FNV-1a, with the bits mixed once more at the end: without that, inputs that differ only in their last bytes differ
/// only in the low bits, and would sort next to each other.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::fnv1a;

    /// The name of a link must be found again by the next release.
    #[test]
    fn the_hash_stays_as_it_is() {
        assert_eq!(fnv1a(b"smp.bed.srv.bed.instance.0"), 3_039_781_375_347_953_567);
    }
}
