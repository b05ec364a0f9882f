//! The control nodes: root and cluster, in one process or in one each, and the command line that talks to them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::plan::Plan;
use serde_json::Value;

use super::{Broker, Topology, Underlay, mosquitto};
use crate::api::Api;
use crate::daemon::{Daemon, Recipe, binary};
use crate::netns::Netns;
use crate::process;
use crate::wait::eventually;

/// The administrator's, fixed by the explicit setting that Oakestra's client needs.
const PASSWORD: &str = "Admin";
const USER: &str = "Admin";

const ROOT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
/// The addresses of further clusters follow.
const SECOND_CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 21);

/// Root and cluster.
#[derive(Debug)]
pub struct Control {
    pub netns: Arc<Netns>,
    /// The same, when root and cluster are one process.
    pub cluster_netns: Arc<Netns>,
    /// The root; or root and cluster, when they are one process.
    pub root: Daemon,
    /// Only when it is a process of its own.
    pub cluster: Option<Daemon>,
    /// Where the cluster uses one that is not in it.
    pub broker: Option<Daemon>,
    /// Beside the first one.
    more_clusters: Vec<Daemon>,
    home: PathBuf,
}

impl Control {
    pub(super) fn start(
        underlay: &Underlay,
        lab: &Path,
        topology: Topology,
        plan: Plan,
        broker: Broker,
    ) -> Result<Self> {
        let netns = underlay.add_node("control", ROOT)?;
        let cluster_netns = match topology {
            Topology::Standalone => Arc::clone(&netns),
            Topology::Split => underlay.add_node("cluster", CLUSTER)?,
        };
        let mut flags = cluster_flags("lab");
        let broker = match broker {
            Broker::Embedded => None,
            Broker::Mosquitto => {
                flags.extend(mosquitto::flags(lab));
                Some(mosquitto::start(lab, &cluster_netns)?)
            }
        };
        let (root, cluster) = match topology {
            Topology::Standalone => {
                flags.extend(plan_flags(plan));
                (start(lab, "standalone", "standalone", &netns, flags)?, None)
            }
            Topology::Split => {
                let root = start(lab, "root", "root", &netns, plan_flags(plan))?;
                (root, Some(start(lab, "cluster", "cluster", &cluster_netns, flags)?))
            }
        };
        let home = lab.join("home");
        fs::create_dir(&home).with_context(|| format!("make {}", home.display()))?;
        Ok(Self { netns, cluster_netns, root, cluster, broker, more_clusters: Vec::new(), home })
    }

    /// Starts a cluster `name` beside those that there are, and gives its address.
    pub(super) fn start_another_cluster(
        &mut self,
        underlay: &Underlay,
        lab: &Path,
        name: &str,
    ) -> Result<Ipv4Addr> {
        let others = u32::try_from(self.more_clusters.len()).context("number of clusters")?;
        let address = Ipv4Addr::from_bits(SECOND_CLUSTER.to_bits() + others);
        let node = format!("cluster{}", others + 2);
        let netns = underlay.add_node(&node, address)?;
        self.more_clusters.push(start(lab, &node, "cluster", &netns, cluster_flags(name))?);
        self.wait_for(address, protocol::port::CLUSTER_API)?;
        Ok(address)
    }

    /// Waits until root and cluster take connections, then logs in.
    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_for_ports()?;
        let mut login = self.hypha_command(&["login", &self.url(), "-u", USER, "--password-stdin"])?;
        process::output_with_input(&mut login, PASSWORD).map(drop)
    }

    /// Waits until the root's API and the cluster's API take connections.
    pub fn wait_for_ports(&mut self) -> Result<()> {
        self.wait_for(ROOT, protocol::port::ROOT_API)?;
        self.wait_for(self.cluster_address(), protocol::port::CLUSTER_API)
    }

    fn wait_for(&mut self, address: Ipv4Addr, port: u16) -> Result<()> {
        let address = SocketAddr::from((address, port));
        eventually(Duration::from_secs(20), &format!("a listener at {address}"), || {
            self.expect_running().map_err(|error| format!("{error:#}"))?;
            self.netns
                .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)))
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())
        })
        .map(drop)
    }

    pub fn expect_running(&mut self) -> Result<()> {
        self.root.expect_running()?;
        self.cluster
            .iter_mut()
            .chain(&mut self.broker)
            .chain(&mut self.more_clusters)
            .try_for_each(Daemon::expect_running)
    }

    pub fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        std::iter::once(&self.root).chain(&self.cluster).chain(&self.broker).chain(&self.more_clusters)
    }

    #[must_use]
    pub fn description(&self) -> &'static str {
        if self.cluster.is_some() {
            "root and cluster (a process each)"
        } else {
            "root and cluster (one process)"
        }
    }

    #[must_use]
    pub fn root_address(&self) -> Ipv4Addr {
        ROOT
    }

    #[must_use]
    pub fn cluster_address(&self) -> Ipv4Addr {
        if self.cluster.is_some() { CLUSTER } else { ROOT }
    }

    /// The base of the root's API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{ROOT}:{}", protocol::port::ROOT_API)
    }

    /// The root's API, without a login.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(Arc::clone(&self.netns), self.url())
    }

    /// The root's API as the administrator, logged in anew.
    pub fn admin(&self) -> Result<Api> {
        self.api().login(USER, PASSWORD)
    }

    /// The root's API of service addresses, asked from where it expects the cluster: it knows callers by address. A
    /// root that is one process with its cluster serves it on loopback only.
    #[must_use]
    pub fn net_api(&self) -> Api {
        let address = if self.cluster.is_some() { ROOT } else { Ipv4Addr::LOCALHOST };
        Api::new(
            Arc::clone(&self.cluster_netns),
            format!("http://{address}:{}", protocol::port::ROOT_NET_API),
        )
    }

    /// The command line, on the control node, with a home of its own.
    pub fn hypha_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.netns.command(binary("hypha")?)?;
        command.args(arguments).envs(self.hypha_environment());
        Ok(command)
    }

    /// What the command line needs in its environment to find this root.
    pub fn hypha_environment(&self) -> [(&'static str, String); 2] {
        [("XDG_CONFIG_HOME", self.home.display().to_string()), ("HYPHA_URL", self.url())]
    }

    /// Runs the command line to its end and gives its standard output.
    pub fn hypha(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.hypha_command(arguments)?)
    }

    /// Runs the command line to its end and gives all that it told.
    pub fn hypha_transcript(&self, arguments: &[&str]) -> Result<String> {
        process::transcript(&mut self.hypha_command(arguments)?)
    }

    /// Runs `hypha … -o json` and reads what it says.
    pub fn hypha_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.hypha(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("read what hypha {arguments:?} says: {text}"))
    }

    /// How many workers the root counts in its active clusters.
    pub fn active_workers(&self) -> Result<usize> {
        let clusters = self.api().get("/api/clusters/active")?.ok()?;
        let count = clusters
            .as_array()
            .context("a list of clusters")?
            .iter()
            .filter_map(|cluster| cluster["active_nodes"].as_u64())
            .sum::<u64>();
        usize::try_from(count).context("number of workers")
    }
}

/// Starts the orchestrator in a role; its folder and its log are called `name`.
fn start(lab: &Path, name: &str, role: &str, netns: &Arc<Netns>, flags: Vec<String>) -> Result<Daemon> {
    let folder = lab.join(name);
    Recipe {
        name: name.to_owned(),
        netns: Arc::clone(netns),
        program: binary("orchestrator")?,
        arguments: [role.to_owned(), "--data-dir".to_owned(), folder.display().to_string()]
            .into_iter()
            .chain(flags)
            .map(Into::into)
            .collect(),
        environment: vec![("HYPHA_INSECURE_ADMIN_PASSWORD".into(), PASSWORD.into())],
        log: lab.join(format!("{name}.log")),
    }
    .start()
}

fn plan_flags(plan: Plan) -> Vec<String> {
    [("--container-range", plan.containers()), ("--service-range", plan.services())]
        .into_iter()
        .flat_map(|(flag, range)| [flag.to_owned(), range.to_string()])
        .collect()
}

fn cluster_flags(name: &str) -> Vec<String> {
    [("--cluster-name", name), ("--cluster-location", "lab"), ("--system-manager-url", &ROOT.to_string())]
        .iter()
        .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
        .collect()
}
