//! Root and one cluster in one process, for a first look and for small installations.
//!
//! They talk to each other over loopback exactly as they would over a network, so nothing about either is special
//! here. The ports that only they use among themselves are not reachable from outside, unless both were told to listen
//! on one address (`--bind`): each reaches the other under the address that the other one's main port has, and so the
//! rest is there too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use protocol::port;
use tokio_util::sync::CancellationToken;

use crate::broker::external::BrokerArgs;
use crate::parent::ParentArgs;
use crate::schedule::Placement;
use crate::store::etcd::StoreArgs;
use crate::{cluster, root};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The flags of `orchestrator standalone`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory for the state of both, in `root` and `cluster` below it; made if it is not there.
    #[arg(long, env = "HYPHA_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hypha")]
    pub data_dir: PathBuf,
    /// Address that the ports for people and workers listen on.
    #[arg(long, env = "HYPHA_BIND", value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind: IpAddr,
    /// Name of the cluster.
    #[arg(long, env = "CLUSTER_NAME", value_name = "NAME", default_value = "default")]
    pub cluster_name: String,
    /// Where the cluster is: free text, or `latitude,longitude,radius`.
    #[arg(long, env = "CLUSTER_LOCATION", value_name = "TEXT", default_value = "local")]
    pub cluster_location: String,
    /// Taken so that the settings for a cluster serve here too, and not needed: the root is in this process.
    #[arg(long, env = "SYSTEM_MANAGER_URL", value_name = "HOST")]
    pub system_manager_url: Option<String>,
    /// Port of the REST API for people and their tools.
    #[arg(long, env = "HYPHA_ROOT_PORT", default_value_t = port::ROOT_API)]
    pub root_port: u16,
    /// Port on which workers join.
    #[arg(long, env = "HYPHA_CLUSTER_PORT", default_value_t = port::CLUSTER_API)]
    pub cluster_port: u16,
    /// Port of the MQTT broker for the workers.
    #[arg(long, env = "HYPHA_CLUSTER_MQTT_PORT", default_value_t = port::CLUSTER_MQTT)]
    pub mqtt_port: u16,
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// Port between root and cluster (on loopback, or on `--bind`): registration.
    #[arg(long, env = "HYPHA_ROOT_GRPC_PORT", default_value_t = port::ROOT_GRPC)]
    pub grpc_port: u16,
    /// Port between root and cluster (on loopback, or on `--bind`): service addresses.
    #[arg(long, env = "HYPHA_ROOT_NET_PORT", default_value_t = port::ROOT_NET_API)]
    pub root_net_port: u16,
    /// Port between root and cluster (on loopback, or on `--bind`): changed service addresses.
    #[arg(long, env = "HYPHA_CLUSTER_NET_PORT", default_value_t = port::CLUSTER_NET_API)]
    pub cluster_net_port: u16,
    /// Seconds of silence after which a worker's instances are placed elsewhere. At least 2.
    #[arg(long, env = "HYPHA_WORKER_TIMEOUT", value_name = "SECONDS", default_value_t = cluster::config::WORKER_TIMEOUT)]
    pub worker_timeout: u64,
    /// Seconds of silence after which the instances of another cluster are given to others, unless their services ask for
    /// another time (on_disconnect). At least 30.
    #[arg(long, env = "HYPHA_CLUSTER_TIMEOUT", value_name = "SECONDS", default_value_t = root::config::CLUSTER_TIMEOUT)]
    pub cluster_timeout: u64,
    /// Which of the workers that fit an instance is placed on.
    #[arg(long, env = "HYPHA_PLACEMENT", value_name = "HOW", default_value = "best-fit")]
    pub placement: Placement,
    /// Fixed password of the user Admin, instead of a generated one. For clients that insist on Admin/Admin;
    /// everyone who reaches the API can then be admin.
    #[arg(long, env = "HYPHA_INSECURE_ADMIN_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub insecure_admin_password: Option<String>,
    #[command(flatten)]
    pub plan: root::PlanArgs,
    #[command(flatten)]
    pub account: root::AccountArgs,
}

/// The configurations of both.
#[derive(Debug, Clone)]
pub struct Config {
    root: root::Config,
    cluster: cluster::Config,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Root(#[from] root::ConfigError),
    #[error(transparent)]
    Cluster(#[from] cluster::ConfigError),
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut root = root::Config::try_from(root::Args {
            data_dir: args.data_dir.join("root"),
            store: StoreArgs::default(),
            bind: args.bind,
            port: args.root_port,
            grpc_port: args.grpc_port,
            net_port: args.root_net_port,
            insecure_admin_password: args.insecure_admin_password,
            cluster_timeout: args.cluster_timeout,
            plan: args.plan,
            account: args.account,
        })?;
        // What listens on one address only is not to be found on loopback.
        let between = if args.bind.is_unspecified() { LOOPBACK } else { args.bind };
        root.grpc = SocketAddr::new(between, args.grpc_port);
        root.net = SocketAddr::new(between, args.root_net_port);
        let mut cluster = cluster::Config::try_from(cluster::Args {
            data_dir: args.data_dir.join("cluster"),
            store: StoreArgs::default(),
            bind: args.bind,
            cluster_name: args.cluster_name,
            cluster_location: args.cluster_location,
            parent: ParentArgs {
                system_manager_url: between.to_string(),
                system_manager_port: args.root_port,
                system_manager_grpc_port: args.grpc_port,
                root_net_port: args.root_net_port,
            },
            port: args.cluster_port,
            net_port: args.cluster_net_port,
            mqtt_port: args.mqtt_port,
            broker: args.broker,
            worker_timeout: args.worker_timeout,
            forget_workers: cluster::config::FORGET_WORKERS,
            placement: args.placement,
        })?;
        cluster.net = SocketAddr::new(between, args.cluster_net_port);
        Ok(Self { root, cluster })
    }
}

/// Why one of the two could not start.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    #[error("root")]
    Root(#[from] root::RootError),
    #[error("cluster")]
    Cluster(#[from] cluster::ClusterError),
}

/// Runs both until `shutdown`; when one cannot start, the other is stopped too.
///
/// # Errors
/// That of the one which could not start.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StandaloneError> {
    let root = async {
        let outcome = root::run(config.root, shutdown.clone()).await;
        shutdown.cancel();
        outcome
    };
    let cluster = async {
        let outcome = cluster::run(config.cluster, shutdown.clone()).await;
        shutdown.cancel();
        outcome
    };
    let (root, cluster) = tokio::join!(root, cluster);
    root?;
    cluster?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Args, Config};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn root_and_cluster_reach_each_other_wherever_they_listen() {
        for (bind, between) in [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")] {
            let args = Cli::parse_from(["standalone", "--bind", bind]).args;
            let Config { root, cluster } = Config::try_from(args).unwrap();
            assert_eq!(cluster.parent.host, between);
            for port in [root.grpc, root.net, cluster.net] {
                assert_eq!(port.ip().to_string(), between, "--bind {bind}: {port}");
            }
            for port in [root.api, cluster.api] {
                assert_eq!(port.ip().to_string(), bind);
            }
        }
    }
}
