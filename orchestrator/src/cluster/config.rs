//! What the cluster is told when it starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use protocol::port;

use crate::broker;
use crate::broker::external::{BrokerArgs, InvalidBroker};
use crate::parent::ParentArgs;
use crate::parent::args::{NoHost, ParentAddress};
use crate::schedule::Placement;
use crate::store::etcd::{InvalidLocation, Location, StoreArgs};

/// Seconds; Oakestra's own.
pub const WORKER_TIMEOUT: u64 = 30;
/// Hours: a week.
pub const FORGET_WORKERS: u32 = 7 * 24;
/// Workers report every 2 s.
const WORKER_TIMEOUT_MIN: u64 = 2;

/// The flags of `orchestrator cluster`. Those in capitals without our prefix are Oakestra's.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory for the state and lock of this cluster; made if it is not there.
    #[arg(long, env = "HYPHA_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hypha/cluster")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Address that all ports listen on.
    #[arg(long, env = "HYPHA_BIND", value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind: IpAddr,
    /// Name of this cluster, by which the root knows it again.
    #[arg(long, env = "CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: String,
    /// Where this cluster is: free text, or `latitude,longitude,radius`.
    #[arg(long, env = "CLUSTER_LOCATION", value_name = "TEXT")]
    pub cluster_location: String,
    #[command(flatten)]
    pub parent: ParentArgs,
    /// Port of the API for the root and for workers that join.
    #[arg(long, short = 'p', env = "HYPHA_CLUSTER_PORT", default_value_t = port::CLUSTER_API)]
    pub port: u16,
    /// Port on which the root tells of changed service addresses.
    #[arg(long, env = "HYPHA_CLUSTER_NET_PORT", default_value_t = port::CLUSTER_NET_API)]
    pub net_port: u16,
    /// Port of the MQTT broker for the workers.
    #[arg(long, env = "HYPHA_CLUSTER_MQTT_PORT", default_value_t = port::CLUSTER_MQTT)]
    pub mqtt_port: u16,
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// Seconds of silence after which a worker's instances are placed elsewhere. At least 2.
    #[arg(long, env = "HYPHA_WORKER_TIMEOUT", value_name = "SECONDS", default_value_t = WORKER_TIMEOUT)]
    pub worker_timeout: u64,
    /// Hours of silence after which a dead worker that has no instances and is not cordoned is forgotten, and its addresses go
    /// back to the root. At least 1.
    #[arg(long, env = "HYPHA_FORGET_WORKERS", value_name = "HOURS", default_value_t = FORGET_WORKERS)]
    pub forget_workers: u32,
    /// Which of the workers that fit an instance is placed on.
    #[arg(long, env = "HYPHA_PLACEMENT", value_name = "HOW", default_value = "best-fit")]
    pub placement: Placement,
}

/// The cluster's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Where the state is, if not in the data directory.
    pub store: Option<Location>,
    pub name: String,
    pub location: String,
    /// API for the root and for workers that join.
    pub api: SocketAddr,
    /// Table updates from the root.
    pub net: SocketAddr,
    pub broker: broker::Settings,
    /// The silence after which a worker's instances are placed elsewhere.
    pub worker_timeout: Duration,
    /// The silence after which a worker is not expected any more.
    pub forget_workers: Duration,
    pub placement: Placement,
    /// The root, or the branch that is above.
    pub parent: ParentAddress,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("--store: {0}")]
    Store(#[from] InvalidLocation),
    #[error(transparent)]
    Broker(#[from] InvalidBroker),
    #[error("--{0}: empty text is no value")]
    Empty(&'static str),
    #[error(transparent)]
    NoHost(#[from] NoHost),
    #[error("--worker-timeout: {0} s is too short, workers report every 2 s")]
    WorkerTimeout(u64),
    #[error("--forget-workers: expected at least 1 hour, got 0")]
    ForgetWorkers,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        for (flag, value) in
            [("cluster-name", &args.cluster_name), ("cluster-location", &args.cluster_location)]
        {
            if value.is_empty() {
                return Err(ConfigError::Empty(flag));
            }
        }
        if args.worker_timeout < WORKER_TIMEOUT_MIN {
            return Err(ConfigError::WorkerTimeout(args.worker_timeout));
        }
        if args.forget_workers == 0 {
            return Err(ConfigError::ForgetWorkers);
        }
        let embedded = broker::Settings::Embedded(SocketAddr::new(args.bind, args.mqtt_port));
        let external = args.broker.settings(args.mqtt_port)?;
        Ok(Self {
            data_dir: args.data_dir,
            store: args.store.location()?,
            name: args.cluster_name,
            location: args.cluster_location,
            api: SocketAddr::new(args.bind, args.port),
            net: SocketAddr::new(args.bind, args.net_port),
            broker: external.map_or(embedded, broker::Settings::External),
            worker_timeout: Duration::from_secs(args.worker_timeout),
            forget_workers: Duration::from_secs(3600) * args.forget_workers,
            placement: args.placement,
            parent: args.parent.address()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Args, Config, ConfigError, NoHost};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn config(root: &str) -> Result<Config, ConfigError> {
        let flags =
            ["cluster", "--cluster-name", "c", "--cluster-location", "l", "--system-manager-url", root];
        Config::try_from(Cli::parse_from(flags).args)
    }

    #[test]
    fn the_root_is_named_by_its_host_alone() {
        for host in ["root.example", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(config(host).unwrap().parent.host, host);
        }
        for text in ["", "http://192.0.2.1", "192.0.2.1:10000", "root/", "[2001:db8::1]"] {
            assert_eq!(config(text).unwrap_err(), ConfigError::NoHost(NoHost(text.to_owned())));
        }
    }
}
