//! The user `Admin` and the organization `root`, which every root has from its first start on.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::id::Id;

use super::key;
use super::organization::{Organization, ROOT};
use super::password::{Password, PasswordError};
use super::role::Role;
use super::user::{User, UserName};
use crate::clock;
use crate::object_id;
use crate::store::{Store, StoreError, Transaction};

/// The name of the user that is always there.
pub const ADMIN: &str = "Admin";
const PASSWORD_FILE: &str = "admin-password";

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("write the admin password to {path}")]
    PasswordFile { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes sure that there is an admin who can log in, and says how. Called once, at start. Returns the id of the
/// organization `root`.
///
/// # Errors
/// When the user cannot be stored, or the password cannot be handed over.
pub async fn ensure(
    store: &Store,
    data_dir: &Path,
    insecure_password: Option<&str>,
) -> Result<Id, AdminError> {
    let stored = store.get::<User>(&key::user(ADMIN)).await?.map(|entry| entry.value);
    let root = ensure_root(store, stored.as_ref()).await?;
    let password_file = data_dir.join(PASSWORD_FILE);
    if let Some(password) = insecure_password.map(Password::from) {
        tracing::warn!(
            "the admin password is fixed by --insecure-admin-password: everyone who knows it and reaches the API is admin"
        );
        if stored.as_ref().is_some_and(|user| user.insecure && user.password_hash.accepts(&password)) {
            return Ok(root);
        }
        remove(&password_file)?;
        let user = User { insecure: true, ..admin(stored, &password, root)? };
        store.put(&key::user(ADMIN), &user).await?;
        return Ok(root);
    }
    if stored.as_ref().is_some_and(|user| !user.insecure) {
        return Ok(root);
    }
    let password = Password::generate();
    let user = admin(stored, &password, root)?;
    // Handed over first: a password that is stored but was never shown would lock everybody out.
    hand_over(&password, &password_file)?;
    store.put(&key::user(ADMIN), &user).await?;
    Ok(root)
}

/// The organization `root`: the one that Admin was in before organizations were kept, or a new one.
async fn ensure_root(store: &Store, admin: Option<&User>) -> Result<Id, StoreError> {
    let name_key = key::organization_name(ROOT);
    if let Some(entry) = store.get::<Id>(&name_key).await? {
        return Ok(entry.value);
    }
    let earlier = admin.and_then(|user| user.memberships.keys().next().copied());
    let root = Organization::root(earlier.unwrap_or_else(object_id::new));
    let transaction = Transaction::new().put(&name_key, &root.id).put(&key::organization(root.id), &root);
    store.commit(transaction).await?;
    Ok(root.id)
}

/// With all roles in `root`, and with this password.
fn admin(stored: Option<User>, password: &Password, root: Id) -> Result<User, PasswordError> {
    let password_hash = password.hash()?;
    let mut user = stored.unwrap_or_else(|| User {
        id: object_id::new(),
        name: UserName::admin(),
        email: String::new(),
        created_at: clock::day_and_minute(clock::now()),
        memberships: BTreeMap::new(),
        password_hash: password_hash.clone(),
        epoch: 0,
        insecure: false,
    });
    user.set_password(password_hash);
    user.memberships.entry(root).or_default().extend(Role::ALL);
    Ok(user)
}

/// On the terminal, if one is there to read it; never into a log that is kept.
fn hand_over(password: &Password, file: &Path) -> Result<(), AdminError> {
    let password = password.reveal();
    let mut stderr = std::io::stderr();
    if stderr.is_terminal()
        && writeln!(stderr, "\n  User {ADMIN}, password {password} (shown only this once)\n").is_ok()
    {
        return Ok(());
    }
    let failed = |source| AdminError::PasswordFile { path: file.to_owned(), source };
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

fn remove(file: &Path) -> Result<(), AdminError> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(AdminError::PasswordFile { path: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::{ADMIN, ensure, key};
    use crate::object_id;
    use crate::root::organization::{Organization, ROOT};
    use crate::root::password::Password;
    use crate::root::role::Role;
    use crate::root::user::User;
    use crate::store::Store;

    async fn admin(store: &Store) -> User {
        store.get(&key::user(ADMIN)).await.unwrap().unwrap().value
    }

    async fn accepts(store: &Store, password: &str) -> bool {
        admin(store).await.password_hash.accepts(&Password::from(password))
    }

    #[tokio::test]
    async fn the_first_start_writes_a_password_that_works_and_later_ones_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        ensure(&store, dir.path(), None).await.unwrap();
        let file = dir.path().join("admin-password");
        // Under a terminal it is shown instead.
        if let Ok(password) = std::fs::read_to_string(&file) {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            ensure(&store, dir.path(), None).await.unwrap();
            assert!(accepts(&store, password.trim()).await);
        }
        assert!(!accepts(&store, "Admin").await);
    }

    #[tokio::test]
    async fn a_fixed_password_goes_when_the_flag_goes_and_takes_its_tokens_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        ensure(&store, dir.path(), Some("Admin")).await.unwrap();
        assert!(accepts(&store, "Admin").await);
        let epoch = admin(&store).await.epoch;
        ensure(&store, dir.path(), Some("Admin")).await.unwrap();
        assert_eq!(admin(&store).await.epoch, epoch, "the same password, the same tokens");
        ensure(&store, dir.path(), None).await.unwrap();
        assert!(!accepts(&store, "Admin").await);
        assert!(admin(&store).await.epoch > epoch, "a token of the old password is good no longer");
    }

    #[tokio::test]
    async fn the_admin_of_the_first_layout_keeps_password_and_organization() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let organization = object_id::new();
        let first = json!({
            "id": object_id::new(), "name": ADMIN, "roles": ["Admin"], "organization": organization,
            "password_hash": Password::from("kept").hash().unwrap(), "insecure": false,
        });
        store.put(&key::user(ADMIN), &first).await.unwrap();
        ensure(&store, dir.path(), None).await.unwrap();
        assert!(accepts(&store, "kept").await);
        assert!(admin(&store).await.memberships[&organization].contains(&Role::Admin));
        let root = store.get::<Organization>(&key::organization(organization)).await.unwrap().unwrap();
        assert_eq!(root.value, Organization::root(organization));
        assert_eq!(ROOT, "root");
    }
}
