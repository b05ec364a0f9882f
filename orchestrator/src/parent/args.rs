//! Where the one above is found.

use protocol::port;

/// The flags about it, which cluster and branch have. Those without our prefix are Oakestra's.
#[derive(Debug, Clone, clap::Args)]
pub struct ParentArgs {
    /// Host name or address of the root, or of the branch that is above.
    #[arg(long, env = "SYSTEM_MANAGER_URL", value_name = "HOST")]
    pub system_manager_url: String,
    /// Its port for reports.
    #[arg(long, env = "SYSTEM_MANAGER_PORT", value_name = "PORT", default_value_t = port::ROOT_API)]
    pub system_manager_port: u16,
    /// Its port for the registration.
    #[arg(long, env = "SYSTEM_MANAGER_GRPC_PORT", value_name = "PORT", default_value_t = port::ROOT_GRPC)]
    pub system_manager_grpc_port: u16,
    /// Its port for service addresses.
    #[arg(long, env = "ROOT_SERVICE_MANAGER_PORT", value_name = "PORT", default_value_t = port::ROOT_NET_API)]
    pub root_net_port: u16,
}

/// Host and ports of the one above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentAddress {
    pub host: String,
    pub api: u16,
    pub grpc: u16,
    pub net: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--system-manager-url: {0:?} is no bare host name or address: leave out scheme, port and path")]
pub struct NoHost(pub String);

impl ParentArgs {
    /// # Errors
    /// When the host is none.
    pub fn address(self) -> Result<ParentAddress, NoHost> {
        let host = self.system_manager_url;
        // One colon separates a port, more of them are an IPv6 address.
        if host.is_empty() || host.contains(['/', '[', ' ']) || host.matches(':').count() == 1 {
            return Err(NoHost(host));
        }
        Ok(ParentAddress {
            host,
            api: self.system_manager_port,
            grpc: self.system_manager_grpc_port,
            net: self.root_net_port,
        })
    }
}
