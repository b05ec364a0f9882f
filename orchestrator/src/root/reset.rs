//! A forgotten password: a link by mail, good once and for three hours. Only its hash is stored.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use protocol::id::Id;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::mail::Mailer;
use super::password::Password;
use super::user::UserName;
use super::{Root, key};
use crate::clock;
use crate::http::Peer;
use crate::store::{StoreError, Transaction};

const LIFETIME: Duration = Duration::from_secs(3 * 60 * 60);
/// Mails that one user gets at once, and then in a minute; likewise what one address may ask for.
pub(super) const OF_USER: (u32, u32) = (3, 1);
pub(super) const OF_ADDRESS: (u32, u32) = (20, 5);

/// What is stored of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reset {
    user: UserName,
    id: Id,
    /// That of the user: a password that was changed meanwhile makes the link worthless.
    epoch: u64,
    /// In seconds since the epoch.
    until: u64,
}

/// 256 random bits: nothing to guess, so nothing to hash slowly.
fn new_token() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn key_of(token: &str) -> String {
    key::password_reset(&BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes())))
}

impl Root {
    /// Sends the user a link. Nobody learns from the answer, or from how long it takes, whether there is such a user.
    pub(super) fn ask_for_reset(self: &Arc<Self>, name: &str, peer: Peer) -> Result<(), Failure> {
        if self.mailer.is_none() {
            return Err(Failure::NoMail);
        }
        self.resets.begin(name, peer).map_err(Failure::TooMany)?;
        if let Ok(name) = UserName::try_from(name) {
            let root = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Some(mailer) = &root.mailer
                    && let Err(error) = root.send_reset(mailer, &name).await
                {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(user = %name, error, "no mail to set a new password was sent");
                }
            });
        }
        Ok(())
    }

    async fn send_reset(&self, mailer: &Mailer, name: &UserName) -> Result<(), ResetError> {
        let Some(user) = self.user(name).await? else { return Ok(()) };
        if user.email.is_empty() {
            return Err(ResetError::NoAddress);
        }
        let token = new_token();
        let until = clock::seconds() + LIFETIME.as_secs();
        let reset = Reset { user: user.name, id: user.id, epoch: user.epoch, until };
        self.store.put(&key_of(&token), &reset).await?;
        Ok(mailer.send_reset(name.as_str(), &user.email, &token).await?)
    }

    /// Sets the password of the user whom the link was sent to.
    pub(super) async fn reset_password(&self, token: &str, password: Password) -> Result<(), Failure> {
        let reset_key = key_of(token);
        let entry = self.store.get::<Reset>(&reset_key).await?.ok_or(Failure::BadReset)?;
        let reset = entry.value;
        let user = self.user(&reset.user).await?;
        let is_good = clock::seconds() <= reset.until
            && user.is_some_and(|user| user.id == reset.id && user.epoch == reset.epoch);
        if !is_good {
            self.store.delete(&reset_key).await?;
            return Err(Failure::BadReset);
        }
        let password = password.chosen()?;
        // Taken before it is used: of two at once, one gets it.
        let take = Transaction::new().expect(&reset_key, Some(entry.revision)).delete(&reset_key);
        match self.store.commit(take).await {
            Err(StoreError::Conflict { .. }) => Err(Failure::BadReset),
            other => {
                other?;
                self.set_password(&reset.user, password).await
            }
        }
    }

    /// Forgets links that have run out.
    pub(super) async fn forget_resets(&self) -> Result<(), Failure> {
        let now = clock::seconds();
        for (key, entry) in self.store.list::<Reset>(key::PASSWORD_RESETS).await? {
            if entry.value.until < now {
                self.store.delete(&key).await?;
            }
        }
        Ok(())
    }
}

/// Why no mail was sent.
#[derive(Debug, thiserror::Error)]
enum ResetError {
    #[error("the user has no mail address")]
    NoAddress,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Mail(#[from] super::mail::MailError),
}
