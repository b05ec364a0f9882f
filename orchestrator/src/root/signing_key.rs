//! The key pair that tokens are signed with: RSA, made once, kept in the store, so that a restart logs nobody out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey, EncodeRsaPublicKey};
use serde::{Deserialize, Serialize};

use super::key;
use crate::store::{Store, StoreError, Transaction};

const BITS: usize = 2048;

/// A key pair: the private key as PKCS #1 DER, in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyPair(String);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("make a key pair to sign tokens with")]
    Generate(#[source] rsa::Error),
    #[error("encode the key pair")]
    Encode(#[source] rsa::pkcs1::Error),
    #[error(
        "the key pair of the store is damaged; without it ({}), the next start makes another",
        key::TOKEN_KEY
    )]
    Damaged,
    #[error("the task that makes a key pair ended")]
    Ended,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyPair {
    /// Takes a fraction of a second.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(KeyError::Generate)?;
        let der = private.to_pkcs1_der().map_err(KeyError::Encode)?;
        Ok(Self(BASE64_STANDARD.encode(der.as_bytes())))
    }

    /// What signs, and what checks.
    ///
    /// # Errors
    /// When it is no key pair.
    pub(super) fn keys(&self) -> Result<(EncodingKey, DecodingKey), KeyError> {
        let der = BASE64_STANDARD.decode(&self.0).map_err(|_invalid| KeyError::Damaged)?;
        let private = RsaPrivateKey::from_pkcs1_der(&der).map_err(|_invalid| KeyError::Damaged)?;
        let public = private.to_public_key().to_pkcs1_der().map_err(KeyError::Encode)?;
        Ok((EncodingKey::from_rsa_der(&der), DecodingKey::from_rsa_der(public.as_bytes())))
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(…)")
    }
}

/// The key pair of this store, made when there is none. The secret of an earlier layout goes.
///
/// # Errors
/// When it cannot be read, made or stored.
pub(super) async fn ensure(store: &Store) -> Result<KeyPair, KeyError> {
    if let Some(entry) = store.get::<KeyPair>(key::TOKEN_KEY).await? {
        return Ok(entry.value);
    }
    let pair = tokio::task::spawn_blocking(KeyPair::generate).await.map_err(|_ended| KeyError::Ended)??;
    store.commit(Transaction::new().put(key::TOKEN_KEY, &pair).delete(key::FIRST_TOKEN_SECRET)).await?;
    Ok(pair)
}
