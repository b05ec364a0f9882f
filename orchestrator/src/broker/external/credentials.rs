//! What the broker is shown, and by what it is known: from files, read anew for each connection, so that what is renewed
//! counts from the next one on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    pub password: Option<PathBuf>,
    /// Nothing: whom this system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("read the password in {0} (--broker-password-file)")]
    Password(PathBuf, #[source] io::Error),
    #[error("{0} (--broker-password-file): the password is empty")]
    NoPassword(PathBuf),
    #[error("read {0} ({1})")]
    Pem(PathBuf, &'static str, #[source] pem::Error),
    #[error("{0} ({1}): no certificate in it")]
    NoCertificate(PathBuf, &'static str),
    #[error("use the certificate of {0} (--broker-cert, --broker-key)")]
    Identity(PathBuf, #[source] rustls::Error),
    #[error("this system trusts nobody: name whom to trust (--broker-ca)")]
    NobodyTrusted,
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

/// They themselves.
pub(super) struct Credentials {
    pub(super) password: Option<String>,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Credentials {
    pub(super) async fn read(files: &Files, is_encrypted: bool) -> Result<Self, CredentialsError> {
        let files = files.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let tls = is_encrypted.then(|| tls(&files)).transpose()?;
            Ok(Self { password: files.password.as_deref().map(password).transpose()?, tls })
        });
        reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

fn password(file: &Path) -> Result<String, CredentialsError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| CredentialsError::Password(file.to_owned(), error))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CredentialsError::NoPassword(file.to_owned()));
    }
    Ok(password.to_owned())
}

fn tls(files: &Files) -> Result<Arc<ClientConfig>, CredentialsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CredentialsError::Tls)?
        .with_root_certificates(trusted(files.ca.as_deref())?);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| CredentialsError::Pem(key_file.clone(), "--broker-key", error))?;
            builder
                .with_client_auth_cert(certificates(certificate, "--broker-cert")?, key)
                .map_err(|error| CredentialsError::Identity(certificate.clone(), error))?
        }
    };
    Ok(Arc::new(config))
}

fn trusted(ca: Option<&Path>) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let (_taken, unusable) = roots.add_parsable_certificates(certificates(file, "--broker-ca")?);
            if unusable > 0 {
                tracing::warn!(file = %file.display(), unusable, "certificates that cannot be used (--broker-ca)");
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err(CredentialsError::NobodyTrusted) } else { Ok(roots) }
}

fn certificates(file: &Path, flag: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let unreadable = |error| CredentialsError::Pem(file.to_owned(), flag, error);
    let all = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if all.is_empty() {
        return Err(CredentialsError::NoCertificate(file.to_owned(), flag));
    }
    Ok(all)
}
