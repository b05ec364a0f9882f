//! Users: who may log in. The first start of an empty root makes `Admin`.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use protocol::id::Id;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::key;
use crate::object_id;
use crate::store::{Store, StoreError, Transaction};

pub const ADMIN: &str = "Admin";
/// The roles that Oakestra gives its first user.
const ADMIN_ROLES: [&str; 4] =
    ["Admin", "Organization_Admin", "Application_Provider", "Infrastructure_Provider"];
/// Crockford's alphabet: no two signs that a reader takes for each other.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Each check costs 19 MiB and tens of milliseconds: more at once would let anyone exhaust a small machine.
const CHECKS_AT_ONCE: usize = 2;
/// Checked for a name that does not exist, so that the answer takes as long as for one that does. Of no password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const PASSWORD_FILE: &str = "admin-password";

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: Id,
    pub name: String,
    pub roles: Vec<String>,
    pub organization: Id,
    /// Argon2id, in PHC form.
    password_hash: String,
    /// The password came from `--insecure-admin-password`, and goes when that flag does.
    insecure: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("hash a password: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("write the admin password to {path}")]
    PasswordFile { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes sure that there is an admin who can log in, and says how. Called once, at start.
///
/// # Errors
/// When the user cannot be stored, or the password cannot be handed over.
pub async fn ensure_admin(
    store: &Store,
    data_dir: &Path,
    insecure_password: Option<&str>,
) -> Result<(), AccountError> {
    let stored = store.get::<User>(&key::user(ADMIN)).await?.map(|entry| entry.value);
    let password_file = data_dir.join(PASSWORD_FILE);
    if let Some(password) = insecure_password {
        tracing::warn!(
            "the admin password is fixed by --insecure-admin-password: everyone who knows it and reaches the API is admin"
        );
        if stored.as_ref().is_some_and(|user| user.insecure && accepts(&user.password_hash, password)) {
            return Ok(());
        }
        remove(&password_file)?;
        return store_admin(store, &admin(stored, password, true)?).await;
    }
    if stored.as_ref().is_some_and(|user| !user.insecure) {
        return Ok(());
    }
    let password = generate();
    let user = admin(stored, &password, false)?;
    // Handed over first: a password that is stored but was never shown would lock everybody out.
    hand_over(&password, &password_file)?;
    store_admin(store, &user).await
}

/// Tokens go with the password that they were given for: the root makes another key to sign with.
async fn store_admin(store: &Store, user: &User) -> Result<(), AccountError> {
    let transaction = Transaction::new().put(&key::user(ADMIN), user).delete(key::TOKEN_SECRET);
    Ok(store.commit(transaction).await?)
}

fn admin(stored: Option<User>, password: &str, insecure: bool) -> Result<User, AccountError> {
    let password_hash = hash(password)?;
    Ok(match stored {
        Some(user) => User { password_hash, insecure, ..user },
        None => User {
            id: object_id::new(),
            name: ADMIN.to_owned(),
            roles: ADMIN_ROLES.map(str::to_owned).to_vec(),
            organization: object_id::new(),
            password_hash,
            insecure,
        },
    })
}

/// On the terminal, if one is there to read it; never into a log that is kept.
fn hand_over(password: &str, file: &Path) -> Result<(), AccountError> {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal()
        && writeln!(stderr, "\n  User {ADMIN}, password {password} (shown only this once)\n").is_ok()
    {
        return Ok(());
    }
    let failed = |source| AccountError::PasswordFile { path: file.to_owned(), source };
    remove(file)?;
    let mut out =
        std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(password.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.sync_all())
        .map_err(failed)?;
    tracing::info!(user = ADMIN, file = %file.display(), "password generated: read it there, then delete the file");
    Ok(())
}

fn remove(file: &Path) -> Result<(), AccountError> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(AccountError::PasswordFile { path: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// 100 random bits as five groups of four.
fn generate() -> String {
    let signs: Vec<u8> =
        rand::random::<[u8; 20]>().iter().map(|byte| ALPHABET[usize::from(byte % 32)]).collect();
    let groups: Vec<_> = signs.chunks(4).map(String::from_utf8_lossy).collect();
    groups.join("-")
}

fn hash(password: &str) -> Result<String, AccountError> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(AccountError::Hash)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(AccountError::Hash)?.to_string())
}

fn accepts(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Checks passwords, a few at a time.
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
    /// The user of this name, if the password is theirs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn log_in(
        &self,
        store: &Store,
        name: &str,
        password: String,
    ) -> Result<Option<User>, StoreError> {
        let known = store.get::<User>(&key::user(name)).await?.map(|entry| entry.value);
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return Ok(None) };
        let hash = known.as_ref().map_or_else(|| NOBODY.to_owned(), |user| user.password_hash.clone());
        // The check cannot be broken off, so it holds its slot itself: a client that leaves does not make room.
        let check = move || (accepts(&hash, &password), slot).0;
        let accepted = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        Ok(known.filter(|_| accepted))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{ADMIN, Gate, ensure_admin, generate};
    use crate::store::Store;

    async fn log_in(store: &Store, password: &str) -> bool {
        Gate::default().log_in(store, ADMIN, password.to_owned()).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn the_first_start_writes_a_password_that_works_and_later_ones_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        ensure_admin(&store, dir.path(), None).await.unwrap();
        let file = dir.path().join("admin-password");
        // Under a terminal it is shown instead.
        if let Ok(password) = std::fs::read_to_string(&file) {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            ensure_admin(&store, dir.path(), None).await.unwrap();
            assert!(log_in(&store, password.trim()).await);
        }
        assert!(!log_in(&store, "Admin").await);
    }

    #[tokio::test]
    async fn a_fixed_password_goes_when_the_flag_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        ensure_admin(&store, dir.path(), Some("Admin")).await.unwrap();
        assert!(log_in(&store, "Admin").await);
        store.put(super::key::TOKEN_SECRET, &[7; 32]).await.unwrap();
        ensure_admin(&store, dir.path(), Some("Admin")).await.unwrap();
        let secret = async || store.get::<[u8; 32]>(super::key::TOKEN_SECRET).await.unwrap();
        assert!(secret().await.is_some(), "the same password, the same tokens");
        ensure_admin(&store, dir.path(), None).await.unwrap();
        assert!(!log_in(&store, "Admin").await);
        assert!(secret().await.is_none(), "a token of the old password is good no longer");
    }

    #[test]
    fn a_name_that_does_not_exist_costs_a_whole_check() {
        let hash = super::PasswordHash::new(super::NOBODY).unwrap();
        let ours = super::hash("x").unwrap();
        assert_eq!(hash.params, super::PasswordHash::new(&ours).unwrap().params);
        assert!(!super::accepts(super::NOBODY, ""));
    }

    #[test]
    fn a_generated_password_is_five_groups_of_four() {
        let password = generate();
        assert_eq!(password.split('-').map(str::len).collect::<Vec<_>>(), [4; 5]);
        assert_ne!(password, generate());
    }
}
