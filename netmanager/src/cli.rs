//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app::Paths;
use crate::datapath::Decapsulation;
use crate::link::Wanted;
use crate::plane::Choice;

/// Connects the containers of this worker to the overlay network.
///
/// Without a command it is the daemon: it loads the data plane into the kernel, gives containers their addresses when
/// node-engine asks for it, and learns from the cluster where services run. Stopping it does not disconnect anybody.
#[derive(Debug, Parser)]
#[command(name = "netmanager", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Serve the API on 127.0.0.1:PORT as well, as Oakestra's node engine up to 0.4.2 needs it (6000). Any local user
    /// may use that port; the UNIX socket admits root only.
    #[arg(short = 'p', long = "port", value_name = "PORT", env = "NETMANAGER_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    #[command(flatten)]
    pub configuration: Configuration,
    /// Where the outer headers of arriving packets are taken off: tc, xdp (in the uplink's driver, where that has it), or
    /// auto, by what is better for the uplink. Overrides Decapsulation in the configuration.
    #[arg(long = "decap", value_name = "PLACE", env = "NETMANAGER_DECAP")]
    pub decapsulation: Option<Decapsulation>,
    /// How other nodes wrap packets to this one: bare, as all of them can; vx, in VXLAN's format, which the kernel merges
    /// before they are unwrapped; or auto, vx where the kernel would not merge bare ones. Only over IPv4, and only by nodes
    /// that know it. Without vx a kernel that has FOU (the module fou) merges bare ones. Overrides Link in the configuration.
    #[arg(long, value_name = "LINK", env = "NETMANAGER_LINK")]
    pub link: Option<Wanted>,
    /// Serve metrics for Prometheus at /metrics on this address as well; a port alone is one on 127.0.0.1. The UNIX socket
    /// has them always. Whoever reaches the address may read the names and traffic of this node's containers.
    #[arg(long, value_name = "[ADDRESS:]PORT", env = "NETMANAGER_METRICS", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub places: Places,
}

/// What the daemon is configured by, and doctor judges by.
#[derive(Debug, Args)]
pub struct Configuration {
    /// The configuration: where this node is reached and where its cluster is.
    #[arg(
        short = 'c',
        long = "config",
        alias = "cfg",
        value_name = "FILE",
        env = "NETMANAGER_CONFIG",
        default_value = "/etc/netmanager/netcfg.json"
    )]
    pub file: PathBuf,
    /// Where packets are forwarded: by programs in the kernel (ebpf), by the daemon (userspace), or in the kernel if it
    /// lets us (auto, unless netcfg.json says otherwise by Datapath).
    #[arg(long, value_name = "WHERE", env = "NETMANAGER_DATAPATH", value_enum)]
    pub datapath: Option<Choice>,
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<u16>() {
        Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
        Err(_not_a_port) => {
            text.parse().map_err(|_invalid| "expected PORT or ADDRESS:PORT, as 9464 or 192.0.2.1:9464")?
        }
    };
    if address.port() == 0 { Err("expected a port from 1 to 65535".to_owned()) } else { Ok(address) }
}

/// Where the daemon keeps its things. The commands must be given the same places as the daemon.
#[derive(Debug, Args)]
pub struct Places {
    /// The UNIX socket of the API.
    #[arg(
        long,
        value_name = "PATH",
        env = "NETMANAGER_SOCKET",
        default_value = "/etc/netmanager/netmanager.sock"
    )]
    pub socket: PathBuf,
    /// What a restart needs: identity, addresses, attached containers.
    #[arg(
        long,
        value_name = "DIR",
        env = "NETMANAGER_STATE_DIR",
        default_value = "/var/lib/hypha/netmanager"
    )]
    pub state_dir: PathBuf,
    /// Where the data plane is pinned, in a BPF file system (mounted if it is not).
    #[arg(long, value_name = "DIR", env = "NETMANAGER_BPFFS", default_value = "/sys/fs/bpf/hypha")]
    pub bpffs: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the node, its containers, the services it knows, and what was dropped and why.
    Status(OutputArgs),
    /// Shows what is behind each service address: instances, where they are, and how connections are spread.
    Services(ServicesArgs),
    /// Shows the connections that the data plane remembers.
    Flows(FlowsArgs),
    /// Shows which packets were dropped, what each reason means, and what can be done.
    Drops(DropsArgs),
    /// Tells what would become of a packet of a container of this node, step by step, and changes nothing. Ends with 1 if no
    /// connection would come about.
    Why(WhyArgs),
    /// Shows packets live as the programs in the kernel decide on them: which program, what becomes of the packet, and why it
    /// goes no further. At most 1000 in a second; without an end named these are a sample. Ctrl-C ends it with 130.
    Trace(TraceArgs),
    /// Looks whether this machine has what is needed, and says of each gap what it costs and how it is closed. Ends with 1 if
    /// something does not work. Needs no daemon.
    Doctor(DoctorArgs),
    /// Disconnects all containers and removes everything that netmanager has made on this node. The daemon must be
    /// stopped first.
    Cleanup(Places),
    /// Measures what a network carries: between two machines, or between two containers on the overlay.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Answers the other end's questions until Ctrl-C. Whoever reaches the port may load this machine.
    Serve(ServeArgs),
    /// Measures the way to a machine that serves.
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where, by TCP and by UDP.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], crate::bench::PORT)))]
    pub listen: SocketAddr,
    /// The CPU that answers single packets; without it the scheduler chooses.
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The other end: name or address, with its port unless that is the usual one.
    #[arg(value_name = "PEER")]
    pub peer: String,
    /// How long each of the measures takes.
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// The CPU that sends single packets; without it the scheduler chooses.
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// How to print it.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 0.01 to 3600".to_owned()) }
}

#[derive(Debug, Args)]
pub struct ServicesArgs {
    /// Only this service: its name (`app.ns.service.ns`, `app/service`, `service`), that of an instance (`service/2`), or an
    /// address. Ends with 3 if it is not known here.
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Only those of this container: name (`app/service/2`, `service/2`) or address.
    #[arg(long, value_name = "CONTAINER")]
    pub from: Option<String>,
    /// Only those to this service or instance: name or address.
    #[arg(long, value_name = "SERVICE")]
    pub to: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct DropsArgs {
    /// Go on printing what is added, once a second, until Ctrl-C (which ends it with 130); as JSON one object a line.
    #[arg(short = 'w', long)]
    pub watch: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The container that would send it: name (`app/service/2`, `service/2`, `service`), address, or its interface here.
    #[arg(value_name = "FROM")]
    pub from: String,
    /// Whom it would send to: name or address, with a port unless that is 80: `web:8080`, `10.30.0.4:80`, `[fdff::4]:80`.
    #[arg(value_name = "TO")]
    pub to: String,
    /// A datagram instead of the beginning of a TCP connection.
    #[arg(long, conflicts_with = "icmp")]
    pub udp: bool,
    /// An echo request, as ping sends it.
    #[arg(long)]
    pub icmp: bool,
    /// So many connections one after another, to see how they are spread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// The sender's port; else one that has no connection.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub from_port: Option<u16>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Only from this sender: name (`app/service/2`, `service/2`) or address. Ends with 3 if it is not known here.
    #[arg(long, value_name = "SENDER")]
    pub from: Option<String>,
    /// Only to this service or instance: name or address.
    #[arg(long, value_name = "RECEIVER")]
    pub to: Option<String>,
    /// Only what is dropped.
    #[arg(long)]
    pub drops: bool,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// As JSON one object a line.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub configuration: Configuration,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// How to print it.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
    #[command(flatten)]
    pub places: Places,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

impl From<Places> for Paths {
    fn from(places: Places) -> Self {
        Self { socket: places.socket, state_dir: places.state_dir, bpffs: places.bpffs }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn metrics_are_served_on_loopback_unless_an_address_is_named() {
        let address =
            |text| Cli::try_parse_from(["netmanager", "--metrics", text]).map(|cli| cli.daemon.metrics);
        assert_eq!(address("9464").unwrap(), Some("127.0.0.1:9464".parse().unwrap()));
        assert_eq!(address("192.0.2.1:9464").unwrap(), Some("192.0.2.1:9464".parse().unwrap()));
        for wrong in ["0", "192.0.2.1", "", "host:1", "65536"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_guides_command_line_is_taken() {
        let cli = Cli::try_parse_from(["netmanager", "-p", "6000"]).unwrap();
        assert_eq!(cli.daemon.port, Some(6000));
        assert!(
            cli.command.is_none() && cli.daemon.metrics.is_none(),
            "metrics are served on TCP only if asked for"
        );
        let cli =
            Cli::try_parse_from(["netmanager", "status", "-o", "json", "--state-dir", "/tmp/x"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Status(_))));
    }
}
