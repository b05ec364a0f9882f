//! New identifiers. Oakestra's parts refuse anything that is not built like a Mongo ObjectId.

use protocol::id::Id;

/// A new identifier: the seconds of the clock, so that ids sort by age, and 64 random bits, so that no two are equal
/// even when the clock was set back.
#[must_use]
pub fn new() -> Id {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an ObjectId has 32 bits of time"
    )]
    let seconds = crate::clock::now() as u32;
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes[4..].copy_from_slice(&rand::random::<[u8; 8]>());
    Id::from_bytes(bytes)
}
