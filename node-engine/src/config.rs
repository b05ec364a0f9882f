//! Flags and environment, checked once and turned into what the rest of the daemon works with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use protocol::location::Location;

use crate::http::Endpoint;
use crate::runtime::Pull;

/// The worker daemon of Hypha: joins a cluster, and runs the instances that the cluster assigns to this machine as
/// containers of its containerd, connected to the overlay by netmanager.
///
/// Running instances outlive this daemon: it adopts them when it is started again.
#[derive(Debug, Clone, Parser)]
#[command(name = "node-engine", version, after_help = HELP)]
pub struct Args {
    /// Host name or address of the cluster orchestrator
    #[arg(short = 'a', long = "cluster", env = "HYPHA_CLUSTER", value_name = "HOST")]
    pub cluster: String,

    /// Port of the cluster orchestrator's API
    #[arg(short = 'p', long = "cluster-port", env = "HYPHA_CLUSTER_PORT", value_name = "PORT",
        default_value_t = protocol::port::CLUSTER_API, value_parser = clap::value_parser!(u16).range(1..))]
    pub cluster_port: u16,

    /// Reach netmanager over TCP at this port of 127.0.0.1 instead of its socket; -1 runs containers without network
    #[arg(short = 'n', long = "netmanager-port", env = "HYPHA_NETMANAGER_PORT", value_name = "PORT",
        allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=65535))]
    pub netmanager_port: Option<i32>,

    /// Socket of netmanager
    #[arg(
        long,
        env = "HYPHA_NETMANAGER_SOCKET",
        value_name = "PATH",
        default_value = "/etc/netmanager/netmanager.sock"
    )]
    pub netmanager_socket: PathBuf,

    /// Socket of containerd
    #[arg(
        long,
        env = "HYPHA_CONTAINERD",
        value_name = "PATH",
        default_value = "/run/containerd/containerd.sock"
    )]
    pub containerd: PathBuf,

    /// Name under which the cluster knows this worker; two workers with one name are taken for the same one
    /// [default: the machine's host name]
    #[arg(long, env = "HYPHA_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,

    /// Where this machine is, in degrees, for services that want to run near a place [default: where its cluster is]
    #[arg(long, env = "HYPHA_LOCATION", value_name = "LATITUDE,LONGITUDE", allow_hyphen_values = true)]
    pub location: Option<Location>,

    /// Where the logs of the instances are kept, one file each
    #[arg(long, env = "HYPHA_LOG_DIR", value_name = "DIR", default_value = "/var/log/hypha")]
    pub log_dir: PathBuf,

    /// Where this worker remembers which instances it runs, to start them again after a reboot
    #[arg(long, env = "HYPHA_STATE_DIR", value_name = "DIR", default_value = "/var/lib/hypha/node-engine")]
    pub state_dir: PathBuf,

    /// Seconds an instance gets to end by itself, before it is killed
    #[arg(long, env = "HYPHA_GRACE", value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub grace: u64,

    /// What to do about an image that is not on this worker
    #[arg(long, env = "HYPHA_PULL", value_name = "WHEN", default_value = "missing")]
    pub pull: Pull,
}

const HELP: &str = "\
Logging goes to standard error; RUST_LOG sets how much (for example RUST_LOG=node_engine=debug).
SIGTERM and SIGINT stop the daemon and leave the instances running.
Exit codes: 0 stopped as asked, 1 could not start, 2 wrong usage or configuration.";

/// A configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Config {
    pub cluster_host: String,
    pub cluster_port: u16,
    pub netmanager: Option<Endpoint>,
    pub containerd: PathBuf,
    pub hostname: String,
    pub location: Option<Location>,
    pub log_dir: PathBuf,
    pub state_dir: PathBuf,
    pub grace: Duration,
    pub pull: Pull,
}

/// A flag whose value makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: {problem}")]
pub struct ConfigError {
    pub flag: &'static str,
    pub problem: String,
}

impl Config {
    /// # Errors
    /// Names the flag that is wrong, and what would be right.
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        let netmanager = match args.netmanager_port {
            Some(-1) => None,
            Some(port) => {
                let port = u16::try_from(port).ok().filter(|port| *port != 0).ok_or_else(|| {
                    wrong("--netmanager-port", "0 is no port; -1 means to run without netmanager")
                })?;
                Some(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port })
            }
            None => Some(Endpoint::Unix(absolute("--netmanager-socket", &args.netmanager_socket)?)),
        };
        Ok(Self {
            cluster_host: cluster_host(&args.cluster)?,
            cluster_port: args.cluster_port,
            netmanager,
            containerd: absolute("--containerd", &args.containerd)?,
            hostname: hostname(args.hostname)?,
            location: args.location,
            log_dir: absolute("--log-dir", &args.log_dir)?,
            state_dir: absolute("--state-dir", &args.state_dir)?,
            grace: Duration::from_secs(args.grace),
            pull: args.pull,
        })
    }

    /// The cluster's API.
    #[must_use]
    pub fn cluster(&self) -> Endpoint {
        Endpoint::Tcp { host: self.cluster_host.clone(), port: self.cluster_port }
    }

    /// How the worker's report names the way to netmanager.
    #[must_use]
    pub fn overlay_socket(&self) -> String {
        self.netmanager.as_ref().map_or_else(|| "disabled".to_owned(), ToString::to_string)
    }

    #[must_use]
    pub fn netmanager_port(&self) -> u16 {
        match self.netmanager {
            Some(Endpoint::Tcp { port, .. }) => port,
            Some(Endpoint::Unix(_)) | None => 0,
        }
    }
}

fn wrong(flag: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError { flag, problem: problem.into() }
}

fn cluster_host(text: &str) -> Result<String, ConfigError> {
    let host = text.trim();
    if host.is_empty() {
        return Err(wrong("--cluster", "the host name or address of the cluster orchestrator is missing"));
    }
    if host.contains('/') {
        return Err(wrong(
            "--cluster",
            format!("{host:?} is not a bare host name or address; leave out scheme and path"),
        ));
    }
    // Brackets are how an IPv6 address is written with a port, but the port has its own flag.
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.matches(':').count() == 1 {
        return Err(wrong("--cluster", format!("{host:?} contains a port; give it with --cluster-port")));
    }
    Ok(bare.to_owned())
}

/// The name becomes a part of paths of control groups, and the key under which the cluster keeps this worker.
fn hostname(given: Option<String>) -> Result<String, ConfigError> {
    let name = match given {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .ok_or_else(|| wrong("--hostname", "the machine has no usable host name; give one"))?,
    };
    let valid = (1..=253).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if valid {
        Ok(name)
    } else {
        Err(wrong("--hostname", format!("{name:?} is not a host name: letters, digits, `-`, `_` and `.`")))
    }
}

fn absolute(flag: &'static str, path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|error| wrong(flag, format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, Config};
    use crate::http::Endpoint;

    impl Config {
        /// What the defaults come to for a worker of the cluster at `cluster`.
        pub(crate) fn for_test(cluster: &str) -> Self {
            parse(&["-a", cluster, "--hostname", "worker-1"]).unwrap()
        }
    }

    fn parse(flags: &[&str]) -> Result<Config, String> {
        let args = Args::try_parse_from(std::iter::once(&"node-engine").chain(flags))
            .map_err(|error| error.to_string())?;
        Config::from_args(args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_guide_s_command_line_is_understood() {
        let config = parse(&["-n", "6000", "-p", "10100", "-a", "192.0.2.10"]).unwrap();
        assert_eq!(config.netmanager, Some(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 6000 }));
        assert_eq!(config.cluster().to_string(), "192.0.2.10:10100");
        let south = parse(&["-a", "c", "--location", "-33.9,151.2"]).unwrap();
        assert_eq!(south.location.unwrap().to_string(), "-33.9,151.2");
        let without_overlay = parse(&["-a", "c", "-n", "-1"]).unwrap();
        assert_eq!(without_overlay.netmanager, None);
        let socket = parse(&["-a", "[2001:db8::1]"]).unwrap();
        assert!(matches!(socket.netmanager, Some(Endpoint::Unix(_))));
        assert_eq!(socket.cluster().to_string(), "[2001:db8::1]:10100");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag() {
        for (flags, words) in [
            (&["-a", "http://cluster"][..], "--cluster"),
            (&["-a", "cluster:10100"], "--cluster-port"),
            (&["-a", " "], "--cluster"),
            (&["-a", "c", "--hostname", "a/b"], "--hostname"),
            (&["-a", "c", "--location", "Munich"], "--location"),
            (&["-a", "c", "-n", "0"], "--netmanager-port"),
            (&["-a", "c", "-n", "70000"], "--netmanager-port"),
            (&["-a", "c", "--grace", "ten"], "--grace"),
            (&["-a", "c", "--pull", "always"], "--pull"),
            (&[], "--cluster"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(words), "{flags:?}: {error}");
        }
    }
}
