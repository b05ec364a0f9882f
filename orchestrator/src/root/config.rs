//! What the root is told when it starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use protocol::plan::{InvalidPlan, Plan, Range};
use protocol::port;

use super::mail::MailConfig;
use crate::store::etcd::{InvalidLocation, Location, StoreArgs};

/// The longest password that is taken: the hash reads all of it at each login.
const PASSWORD_MAX: usize = 256;
/// Seconds.
pub const CLUSTER_TIMEOUT: u64 = 300;
const CLUSTER_TIMEOUT_MIN: u64 = 30;

/// The flags of `orchestrator root`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory for the state, secrets and lock of this root; made if it is not there.
    #[arg(long, env = "HYPHA_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hypha/root")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Address that all ports listen on.
    #[arg(long, env = "HYPHA_BIND", value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind: IpAddr,
    /// Port of the REST API for people and their tools.
    #[arg(long, short = 'p', env = "HYPHA_ROOT_PORT", default_value_t = port::ROOT_API)]
    pub port: u16,
    /// Port on which clusters register (gRPC).
    #[arg(long, env = "HYPHA_ROOT_GRPC_PORT", default_value_t = port::ROOT_GRPC)]
    pub grpc_port: u16,
    /// Port on which clusters ask for service addresses.
    #[arg(long, env = "HYPHA_ROOT_NET_PORT", default_value_t = port::ROOT_NET_API)]
    pub net_port: u16,
    /// Fixed password of the user Admin, instead of a generated one. For clients that insist on Admin/Admin;
    /// everyone who reaches the API can then be admin.
    #[arg(long, env = "HYPHA_INSECURE_ADMIN_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub insecure_admin_password: Option<String>,
    /// Seconds of silence after which a cluster's instances are given to others, unless their services ask for another time
    /// (on_disconnect). A silent cluster's workers may run on, so this is rather long. At least 30: clusters report every 15 s.
    #[arg(long, env = "HYPHA_CLUSTER_TIMEOUT", value_name = "SECONDS", default_value_t = CLUSTER_TIMEOUT)]
    pub cluster_timeout: u64,
    #[command(flatten)]
    pub plan: PlanArgs,
    #[command(flatten)]
    pub account: AccountArgs,
}

/// The flags about the overlay's addresses, which `standalone` has too.
#[derive(Debug, Clone, clap::Args)]
pub struct PlanArgs {
    /// IPv4 addresses for containers: a network (172.20.0.0/14), or FIRST-LAST. Each worker gets 64 of them. Set it where a
    /// LAN or VPN of the workers has the default ones; Oakestra's own workers and clusters know no others. Neither range can
    /// change while workers have some.
    #[arg(long, env = "HYPHA_CONTAINER_RANGE", value_name = "RANGE", default_value_t = Plan::default().containers())]
    pub container_range: Range,
    /// IPv4 addresses for services and instances: a network from /16 to /24. It cannot change while services have some, or
    /// workers have joined.
    #[arg(long, env = "HYPHA_SERVICE_RANGE", value_name = "NETWORK", default_value_t = Plan::default().services())]
    pub service_range: Range,
}

impl PlanArgs {
    fn plan(&self) -> Result<Plan, InvalidPlan> {
        Plan::new(self.container_range, self.service_range)
    }
}

/// As the flags are by default.
impl Default for PlanArgs {
    fn default() -> Self {
        let plan = Plan::default();
        Self { container_range: plan.containers(), service_range: plan.services() }
    }
}

/// The flags about logins, which `standalone` has too.
#[derive(Clone, Default, clap::Args)]
pub struct AccountArgs {
    /// Server that sends mail to those who forgot their password: smtps://USER:PASSWORD@HOST, or smtp:// with
    /// ?tls=required. With a password, give it by the environment, where other users cannot see it.
    #[arg(long, env = "HYPHA_SMTP_URL", value_name = "URL", hide_env_values = true, requires_all = ["mail_from", "dashboard_url"])]
    pub smtp_url: Option<String>,
    /// Whom this mail is from: an address, with or without a name before it.
    #[arg(long, env = "HYPHA_MAIL_FROM", value_name = "ADDRESS")]
    pub mail_from: Option<String>,
    /// Where people open the dashboard: the links in this mail lead there.
    #[arg(long, env = "HYPHA_DASHBOARD_URL", value_name = "URL")]
    pub dashboard_url: Option<String>,
    /// Let a refresh token be used again until it runs out. For Oakestra's dashboard, which does not take up the new
    /// one that each use gives; whoever gets hold of one can then use it unnoticed.
    #[arg(long, env = "HYPHA_REUSABLE_REFRESH_TOKENS")]
    pub reusable_refresh_tokens: bool,
}

/// The root's configuration, checked.
#[derive(Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Where the state is, if not in the data directory.
    pub store: Option<Location>,
    /// REST API.
    pub api: SocketAddr,
    /// Registration of clusters.
    pub grpc: SocketAddr,
    /// Service addresses and table queries, for clusters.
    pub net: SocketAddr,
    pub insecure_admin_password: Option<String>,
    /// The silence after which a cluster's instances are given to others.
    pub cluster_timeout: Duration,
    /// Without it, nobody is sent mail.
    pub mail: Option<MailConfig>,
    pub reusable_refresh_tokens: bool,
    /// Which addresses the overlay has.
    pub plan: Plan,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("--store: {0}")]
    Store(#[from] InvalidLocation),
    #[error("--container-range, --service-range: {0}")]
    Plan(#[from] InvalidPlan),
    #[error("--data-dir: the empty path names no directory")]
    NoDataDir,
    #[error("--insecure-admin-password: expected 1 to {PASSWORD_MAX} bytes, got {0}")]
    PasswordLength(usize),
    #[error("--cluster-timeout: {0} s is too short, clusters report every 15 s")]
    ClusterTimeout(u64),
    #[error("--mail-from: expected a mail address, got {0:?}")]
    MailFrom(String),
    #[error("--dashboard-url: expected http:// or https:// and a host, got {0:?}")]
    DashboardUrl(String),
    #[error("--smtp-url: needs --mail-from and --dashboard-url beside it")]
    HalfMail,
    #[error("--smtp-url: expected smtp:// or smtps:// and a host")]
    SmtpUrl,
    #[error("--{first} and --{second} are both {port}: each listener needs its own port")]
    SamePort { first: &'static str, second: &'static str, port: u16 },
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        if args.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::NoDataDir);
        }
        if let Some(password) = &args.insecure_admin_password
            && !(1..=PASSWORD_MAX).contains(&password.len())
        {
            return Err(ConfigError::PasswordLength(password.len()));
        }
        if args.cluster_timeout < CLUSTER_TIMEOUT_MIN {
            return Err(ConfigError::ClusterTimeout(args.cluster_timeout));
        }
        let ports = [("port", args.port), ("grpc-port", args.grpc_port), ("net-port", args.net_port)];
        for (index, (first, port)) in ports.iter().enumerate() {
            // Port 0 is whichever the system gives.
            if let Some((second, _)) =
                ports[index + 1..].iter().find(|(_, other)| other == port && *port != 0)
            {
                return Err(ConfigError::SamePort { first, second, port: *port });
            }
        }
        Ok(Self {
            data_dir: args.data_dir,
            store: args.store.location()?,
            api: SocketAddr::new(args.bind, args.port),
            grpc: SocketAddr::new(args.bind, args.grpc_port),
            net: SocketAddr::new(args.bind, args.net_port),
            insecure_admin_password: args.insecure_admin_password,
            cluster_timeout: Duration::from_secs(args.cluster_timeout),
            reusable_refresh_tokens: args.account.reusable_refresh_tokens,
            mail: args.account.mail()?,
            plan: args.plan.plan()?,
        })
    }
}

impl AccountArgs {
    fn mail(self) -> Result<Option<MailConfig>, ConfigError> {
        let Some(server) = self.smtp_url else { return Ok(None) };
        let (Some(from), Some(dashboard)) = (self.mail_from, self.dashboard_url) else {
            return Err(ConfigError::HalfMail);
        };
        let begins = |url: &str, schemes: [&str; 2]| {
            schemes.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|host| !host.is_empty()))
        };
        if !begins(&server, ["smtp://", "smtps://"]) {
            return Err(ConfigError::SmtpUrl);
        }
        if !begins(&dashboard, ["http://", "https://"]) {
            return Err(ConfigError::DashboardUrl(dashboard));
        }
        let from = from.parse().map_err(|_invalid| ConfigError::MailFrom(from))?;
        Ok(Some(MailConfig { server, from, dashboard }))
    }
}

impl std::fmt::Debug for AccountArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountArgs")
            .field("smtp_url", &self.smtp_url.as_ref().map(|_| "…"))
            .field("mail_from", &self.mail_from)
            .field("dashboard_url", &self.dashboard_url)
            .field("reusable_refresh_tokens", &self.reusable_refresh_tokens)
            .finish()
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("data_dir", &self.data_dir)
            .field("store", &self.store)
            .field("api", &self.api)
            .field("grpc", &self.grpc)
            .field("net", &self.net)
            .field("insecure_admin_password", &self.insecure_admin_password.as_ref().map(|_| "…"))
            .field("cluster_timeout", &self.cluster_timeout)
            .field("mail", &self.mail)
            .field("plan", &self.plan)
            .field("reusable_refresh_tokens", &self.reusable_refresh_tokens)
            .finish()
    }
}
