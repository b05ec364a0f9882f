//! The login that is remembered between runs: one file, readable by its owner alone.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// What is stored by `hypha login`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) url: String,
    pub(crate) user: String,
    /// Lives for minutes.
    pub(crate) token: String,
    /// Lives for days; `None` for a token that came from the environment.
    #[serde(default)]
    pub(crate) refresh_token: Option<String>,
}

/// Without the tokens, so that they never get into a message.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("cannot tell where to keep the login: neither XDG_CONFIG_HOME nor HOME is an absolute path")]
    NoHome,
    #[error("{action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is no stored login: {source}")]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

/// The file of the login.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    /// `$XDG_CONFIG_HOME/hypha/login.json`, else `~/.config/hypha/login.json`.
    pub(crate) fn from_environment() -> Result<Self, SessionError> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        Ok(Self::at(config.ok_or(SessionError::NoHome)?.join("hypha").join("login.json")))
    }

    fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The login, if there is one.
    pub(crate) fn load(&self) -> Result<Option<Session>, SessionError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| SessionError::Unreadable { path: self.path.clone(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Whether others than the owner may read the login.
    pub(crate) fn is_exposed(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
    }

    /// Replaces the login in one step, so that a run beside this one reads the old or the new one.
    pub(crate) fn save(&self, session: &Session) -> Result<(), SessionError> {
        let folder = self.path.parent().ok_or(SessionError::NoHome)?;
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| self.failed("make the folder of", source))?;
        let text = serde_json::to_vec_pretty(session)
            .map_err(|source| SessionError::Unreadable { path: self.path.clone(), source })?;
        let draft = self.path.with_extension(format!("{}.new", std::process::id()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&draft, &self.path));
        written.map_err(|source| {
            drop(std::fs::remove_file(&draft));
            self.failed("write", source)
        })
    }

    /// Whether there was one to forget.
    pub(crate) fn forget(&self) -> Result<bool, SessionError> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.failed("remove", source)),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> SessionError {
        SessionError::File { action, path: self.path.clone(), source }
    }
}

/// What a token says of itself. Not checked: only the root can, and does.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Claims {
    #[serde(default)]
    pub(crate) sub: String,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
}

/// Empty claims for a token that cannot be read.
pub(crate) fn claims(token: &str) -> Claims {
    let body = token.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    body.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Claims, Session, Store, claims};

    fn session(token: &str) -> Session {
        Session {
            url: "http://root:10000".into(),
            user: "Admin".into(),
            token: token.into(),
            refresh_token: Some("long".into()),
        }
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone_and_forgotten_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("hypha/login.json"));
        assert_eq!(store.load().unwrap(), None);
        store.save(&session("one")).unwrap();
        store.save(&session("two")).unwrap();
        assert_eq!(store.load().unwrap(), Some(session("two")));
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(store.path()), mode(store.path().parent().unwrap())), (0o600, 0o700));
        assert!(!store.is_exposed());
        assert!(store.forget().unwrap() && !store.forget().unwrap());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("login.json"));
        std::fs::write(store.path(), "{").unwrap();
        let message = store.load().unwrap_err().to_string();
        assert!(message.contains("login.json is no stored login"), "{message}");
    }

    #[test]
    fn tokens_do_not_appear_in_debug_output() {
        assert!(!format!("{:?}", session("secret")).contains("secret"));
    }

    #[test]
    fn claims_are_read_from_a_token() {
        // {"sub":"Admin","roles":["Admin"]}
        let token = "e30.eyJzdWIiOiJBZG1pbiIsInJvbGVzIjpbIkFkbWluIl19.c2ln";
        assert_eq!(claims(token), Claims { sub: "Admin".into(), roles: vec!["Admin".into()] });
        assert_eq!(claims("nonsense"), Claims::default());
    }
}
