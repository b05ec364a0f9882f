//! What a branch is told when it starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use protocol::port;

use crate::parent::{NoHost, ParentAddress, ParentArgs};
use crate::store::etcd::{InvalidLocation, Location, StoreArgs};

/// Seconds; as long as a root waits.
const CLUSTER_TIMEOUT: u64 = 300;
const CLUSTER_TIMEOUT_MIN: u64 = 30;

/// The flags of `orchestrator branch`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory for the state and lock of this branch; made if it is not there.
    #[arg(long, env = "HYPHA_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hypha/branch")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Address that all ports listen on.
    #[arg(long, env = "HYPHA_BIND", value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind: IpAddr,
    /// Name of this branch, by which the one above knows it again, and by which services ask for it as for a cluster.
    #[arg(long, env = "CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: String,
    /// Where this branch is: free text, or `latitude,longitude,radius`.
    #[arg(long, env = "CLUSTER_LOCATION", value_name = "TEXT")]
    pub cluster_location: String,
    #[command(flatten)]
    pub parent: ParentArgs,
    /// Port to which the clusters below report.
    #[arg(long, env = "HYPHA_ROOT_PORT", default_value_t = port::ROOT_API)]
    pub reports_port: u16,
    /// Port on which the clusters below register (gRPC).
    #[arg(long, env = "HYPHA_ROOT_GRPC_PORT", default_value_t = port::ROOT_GRPC)]
    pub grpc_port: u16,
    /// Port on which the clusters below ask for service addresses.
    #[arg(long, env = "HYPHA_ROOT_NET_PORT", default_value_t = port::ROOT_NET_API)]
    pub addresses_port: u16,
    /// Port on which the one above gives instances to this branch.
    #[arg(long, short = 'p', env = "HYPHA_CLUSTER_PORT", default_value_t = port::CLUSTER_API)]
    pub port: u16,
    /// Port on which the one above tells of changed service addresses.
    #[arg(long, env = "HYPHA_CLUSTER_NET_PORT", default_value_t = port::CLUSTER_NET_API)]
    pub net_port: u16,
    /// Seconds of silence after which a cluster's instances are given to others, unless their services ask for another time
    /// (on_disconnect). At least 30: clusters report every 15 s.
    #[arg(long, env = "HYPHA_CLUSTER_TIMEOUT", value_name = "SECONDS", default_value_t = CLUSTER_TIMEOUT)]
    pub cluster_timeout: u64,
}

/// The branch's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Where the state is, if not in the data directory.
    pub store: Option<Location>,
    pub name: String,
    pub location: String,
    /// A root, or another branch.
    pub parent: ParentAddress,
    /// Reports of clusters.
    pub reports: SocketAddr,
    /// Registration of clusters.
    pub grpc: SocketAddr,
    /// Service addresses and table queries, for clusters.
    pub addresses: SocketAddr,
    /// Instances to run, from above.
    pub api: SocketAddr,
    /// Table updates, from above.
    pub net: SocketAddr,
    /// The silence after which a cluster's instances are given to others.
    pub cluster_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("--store: {0}")]
    Store(#[from] InvalidLocation),
    #[error("--{0}: empty text is no value")]
    Empty(&'static str),
    #[error(transparent)]
    NoHost(#[from] NoHost),
    #[error("--cluster-timeout: {0} s is too short, clusters report every 15 s")]
    ClusterTimeout(u64),
    #[error("--{first} and --{second} are both {port}: each listener needs its own port")]
    SamePort { first: &'static str, second: &'static str, port: u16 },
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
        if args.cluster_timeout < CLUSTER_TIMEOUT_MIN {
            return Err(ConfigError::ClusterTimeout(args.cluster_timeout));
        }
        let ports = [
            ("reports-port", args.reports_port),
            ("grpc-port", args.grpc_port),
            ("addresses-port", args.addresses_port),
            ("port", args.port),
            ("net-port", args.net_port),
        ];
        for (index, (first, port)) in ports.iter().enumerate() {
            // Port 0 is whichever the system gives.
            let mut others = ports[index + 1..].iter();
            if let Some((second, _)) = others.find(|(_, other)| other == port && *port != 0) {
                return Err(ConfigError::SamePort { first, second, port: *port });
            }
        }
        let at = |port| SocketAddr::new(args.bind, port);
        Ok(Self {
            data_dir: args.data_dir,
            store: args.store.location()?,
            name: args.cluster_name,
            location: args.cluster_location,
            parent: args.parent.address()?,
            reports: at(args.reports_port),
            grpc: at(args.grpc_port),
            addresses: at(args.addresses_port),
            api: at(args.port),
            net: at(args.net_port),
            cluster_timeout: Duration::from_secs(args.cluster_timeout),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Args, Config, ConfigError};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn config(more: &[&str]) -> Result<Config, ConfigError> {
        let names = ["branch", "--cluster-name", "b", "--cluster-location", "l", "--system-manager-url", "r"];
        Config::try_from(Cli::parse_from([&names[..], more].concat()).args)
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_its_flag() {
        assert_eq!(config(&[]).unwrap().parent.host, "r");
        for (flags, said) in [
            (["--cluster-timeout", "29"], "--cluster-timeout: 29 s is too short, clusters report every 15 s"),
            (
                ["--net-port", "50052"],
                "--grpc-port and --net-port are both 50052: each listener needs its own port",
            ),
        ] {
            assert_eq!(config(&flags).unwrap_err().to_string(), said);
        }
    }
}
