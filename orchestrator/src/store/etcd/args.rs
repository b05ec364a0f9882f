//! The flags about where the state is.

use std::net::IpAddr;
use std::path::PathBuf;

use super::location::{InvalidLocation, Location, Tls};
use crate::unshown::Unshown;

/// The flags of a daemon whose state may be in etcd.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StoreArgs {
    /// Keep the state in etcd (3.4 or later) instead of a file in the data directory: etcds://HOST:PORT, where USER:PASSWORD@ may
    /// stand before the host, other hosts after a comma, and a prefix of keys after a slash; etcd:// is not encrypted. Of several
    /// daemons of the same kind and name that are started so, each with its own data directory, one leads, and the others pass on to
    /// it what they are asked; another takes over within 5 s when it is gone. etcd needs --max-txn-ops=1024.
    #[arg(long, env = "HYPHA_STORE", value_name = "URL", hide_env_values = true, value_parser = Unshown::<Location>::new())]
    pub store: Option<Location>,
    /// PEM file of those who may have signed the certificate of etcd, instead of those whom this system trusts.
    #[arg(long, env = "HYPHA_STORE_CA", value_name = "FILE", requires = "store")]
    pub store_ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to etcd.
    #[arg(long, env = "HYPHA_STORE_CERT", value_name = "FILE", requires_all = ["store", "store_key"])]
    pub store_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, env = "HYPHA_STORE_KEY", value_name = "FILE", requires_all = ["store", "store_cert"])]
    pub store_key: Option<PathBuf>,
    /// Address under which others with the same store reach this one, if that is not the one that it has towards etcd.
    #[arg(long, env = "HYPHA_ADVERTISE", value_name = "ADDRESS", requires = "store")]
    pub advertise: Option<IpAddr>,
}

impl StoreArgs {
    /// Where the state is, if not in the data directory.
    ///
    /// # Errors
    /// Files are given for what is not encrypted.
    pub fn location(self) -> Result<Option<Location>, InvalidLocation> {
        let files = Tls { ca: self.store_ca, identity: self.store_cert.zip(self.store_key) };
        let own = self.advertise;
        self.store.map(|location| location.with(files).map(|location| location.seen_at(own))).transpose()
    }
}
