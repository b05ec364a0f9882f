//! Passwords: hashed, checked one at a time, and never shown.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// Bytes of a password that somebody chooses.
pub const MIN: usize = 8;
/// The hash reads all of it at each login.
pub const MAX: usize = 256;
/// Crockford's alphabet: no two signs that a reader takes for each other.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// What a check takes: KiB, and how often it goes through them. One of the choices of OWASP that are as good as each
/// other, and that one whose memory is given back: glibc keeps blocks of up to 32 MiB for the thread that had one, once
/// the first was freed, so that 19 MiB twice over stayed with each thread that had ever checked a password.
const MEMORY: u32 = 46 * 1024;
const PASSES: u32 = 1;
/// A check costs tens of milliseconds, too: more at once would let anyone exhaust a small machine.
const CHECKS_AT_ONCE: usize = 1;
/// Checked for a name that does not exist, so that the answer takes as long as for one that does. Of no password.
const NOBODY: &str =
    "$argon2id$v=19$m=47104,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password, hashed by Argon2id, in PHC form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash(String);

/// A password as it came over the wire: not shown, not stored.
#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Password(String);

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("hash a password: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("the task that hashes a password ended")]
    Ended,
}

impl Password {
    /// Five groups of four signs: 100 random bits.
    #[must_use]
    pub fn generate() -> Self {
        let signs: Vec<u8> =
            rand::random::<[u8; 20]>().iter().map(|byte| ALPHABET[usize::from(byte % 32)]).collect();
        let groups: Vec<_> = signs.chunks(4).map(String::from_utf8_lossy).collect();
        Self(groups.join("-"))
    }

    /// Whether somebody may choose it: long enough to guess badly, short enough to hash.
    #[must_use]
    pub fn is_acceptable(&self) -> bool {
        (MIN..=MAX).contains(&self.0.len())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For whoever is to be told.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Takes tens of milliseconds.
    ///
    /// # Errors
    /// When the hash refuses it.
    pub fn hash(&self) -> Result<Hash, PasswordError> {
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(PasswordError::Hash)?;
        let params =
            Params::new(MEMORY, PASSES, 1, None).map_err(|error| PasswordError::Hash(error.into()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2.hash_password(self.0.as_bytes(), &salt).map_err(PasswordError::Hash)?;
        Ok(Hash(hash.to_string()))
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Hash {
    /// Of no password.
    fn nobody() -> Self {
        Self(NOBODY.to_owned())
    }

    /// Whether it is of this password. Takes tens of milliseconds.
    #[must_use]
    pub fn accepts(&self, password: &Password) -> bool {
        // The limit keeps a megabyte of password from being hashed.
        password.0.len() <= MAX
            && PasswordHash::new(&self.0)
                .is_ok_and(|hash| Argon2::default().verify_password(password.0.as_bytes(), &hash).is_ok())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Hashes and checks passwords, one at a time.
#[derive(Debug, Clone)]
pub struct Gate {
    slots: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(CHECKS_AT_ONCE)) }
    }
}

impl Gate {
    /// Whether the password is that of the hash; without a hash it is not, after as long a time.
    pub async fn check(&self, hash: Option<Hash>, password: Password) -> bool {
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(Hash::nobody);
        self.run(move || hash.accepts(&password)).await.is_some_and(|accepted| accepted && is_known)
    }

    /// # Errors
    /// When the hash refuses it.
    pub async fn hash(&self, password: Password) -> Result<Hash, PasswordError> {
        self.run(move || password.hash()).await.ok_or(PasswordError::Ended)?
    }

    /// The work cannot be broken off, so it holds its slot itself: a client that leaves does not make room.
    async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        tokio::task::spawn_blocking(move || (work(), slot).0).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, Hash, NOBODY, Password, PasswordHash};

    #[test]
    fn a_name_that_does_not_exist_costs_a_whole_check() {
        let ours = Password::from("x").hash().unwrap();
        let params = |hash: &str| PasswordHash::new(hash).unwrap().params;
        assert_eq!(params(NOBODY), params(&ours.0));
        assert!(!Hash::nobody().accepts(&Password::from("")));
    }

    #[tokio::test]
    async fn a_hash_accepts_its_own_password_only() {
        let gate = Gate::default();
        let hash = gate.hash(Password::from("correct horse")).await.unwrap();
        assert!(gate.check(Some(hash.clone()), Password::from("correct horse")).await);
        assert!(!gate.check(Some(hash), Password::from("wrong horse")).await);
        assert!(!gate.check(None, Password::from("")).await);
    }

    #[test]
    fn a_generated_password_is_five_groups_of_four() {
        let password = Password::generate();
        assert_eq!(password.reveal().split('-').map(str::len).collect::<Vec<_>>(), [4; 5]);
        assert_ne!(password.reveal(), Password::generate().reveal());
        assert!(password.is_acceptable());
    }
}
