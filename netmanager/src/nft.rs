//! Our nftables table, one for each IP family: containers reach the world under the node's address, and host ports lead
//! into containers.
//!
//! A whole table is written in one transaction each time, so there is no moment without rules and no rule of ours
//! can be left over. No table of others is ever touched.
//!
//! Whoever dials a host port is seen by the container under its own address, with two exceptions that are seen as the
//! container's gateway. A process of the node that dials 127.0.0.1: no packet with that source may leave the node (::1 is
//! not led into containers: IPv6 has no such exception to be made for a link). And
//! the node's own containers: their answers would go from container to container, past the translation back.

mod closed;
mod foreign;

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Output, Stdio};

use protocol::address::{SUBNET_PREFIX, SUBNET6_PREFIX};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::ipam::{Block, Block6};
use crate::net::{LINK_PREFIX, MERGING_LINK};
use crate::ports::PortMapping;

pub use self::closed::{CLOSED, close, reopen};
pub use self::foreign::{DroppingChain, dropping_chains};

/// The tables' name.
pub const TABLE: &str = "hypha";

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("run nft (is the package nftables installed?)")]
    Run(#[source] io::Error),
    #[error("nft refused {what}: {said}")]
    Refused { what: &'static str, said: String },
    #[error("read the chains that nft lists")]
    Listing(#[source] serde_json::Error),
}

/// A host port and the container behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    pub mapping: PortMapping,
    pub ns_ip: Ipv4Addr,
    /// Nothing where the container has no IPv6.
    pub ns_ip6: Option<Ipv6Addr>,
}

/// Makes the table of IPv4 as it must be now, whatever it was before.
///
/// # Errors
/// When `nft` cannot be run or refuses the rules: then the table is as before.
pub async fn apply(block: Block, forwards: &[Forward]) -> Result<(), NftError> {
    run(&Family::v4(block).rules(forwards), "the rules of table ip hypha").await
}

/// The same of IPv6.
///
/// # Errors
/// As [`apply`]; also on kernels without IPv6 or its address translation.
pub async fn apply6(block: Block6, forwards: &[Forward]) -> Result<(), NftError> {
    run(&Family::v6(block).rules(forwards), "the rules of table ip6 hypha").await
}

/// Removes the tables. Says of which families there were some.
///
/// # Errors
/// When `nft` cannot be run.
pub async fn remove() -> Result<Vec<&'static str>, NftError> {
    let mut removed = Vec::new();
    for family in ["ip", "ip6"] {
        match run(&format!("delete table {family} {TABLE}\n"), "to delete a table hypha").await {
            Ok(()) => removed.push(family),
            Err(NftError::Refused { said, .. }) if is_absent(&said) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// There is no such table, or the kernel has not even the family.
fn is_absent(said: &str) -> bool {
    ["No such file or directory", "not supported"].iter().any(|text| said.contains(text))
}

/// What differs between the tables.
struct Family {
    name: &'static str,
    subnet: String,
    gateway: IpAddr,
    loopback: &'static str,
    /// Whether the node's own packets to its loopback address can be led into a container.
    leads_loopback: bool,
}

impl Family {
    fn v4(block: Block) -> Self {
        Self {
            name: "ip",
            subnet: format!("{}/{SUBNET_PREFIX}", block.first()),
            gateway: block.gateway().into(),
            loopback: "127.0.0.0/8",
            leads_loopback: true,
        }
    }

    fn v6(block: Block6) -> Self {
        Self {
            name: "ip6",
            subnet: format!("{}/{SUBNET6_PREFIX}", block.first()),
            gateway: block.gateway().into(),
            loopback: "::1",
            leads_loopback: false,
        }
    }

    fn target(&self, forward: &Forward) -> Option<SocketAddr> {
        let ns_ip =
            if self.gateway.is_ipv4() { Some(forward.ns_ip.into()) } else { forward.ns_ip6.map(IpAddr::V6) };
        ns_ip.map(|ns_ip| SocketAddr::new(ns_ip, forward.mapping.container))
    }

    fn rules(&self, forwards: &[Forward]) -> String {
        let Self { name, subnet, gateway, loopback, leads_loopback } = self;
        // Deleting what may not exist is an error, adding what exists is not.
        let mut text = format!(
            "table {name} {TABLE}\ndelete table {name} {TABLE}\ntable {name} {TABLE} {{\n  chain hostports {{\n"
        );
        for forward in forwards {
            let Some(target) = self.target(forward) else { continue };
            let PortMapping { transport, host, .. } = forward.mapping;
            // Writing to a String cannot fail.
            let _ok = writeln!(text, "    {transport} dport {host} dnat to {target}");
        }
        let from_elsewhere = format!("fib daddr type local {name} daddr != {loopback}");
        let from_here = if *leads_loopback { "fib daddr type local" } else { &from_elsewhere };
        let _ok = write!(
            text,
            "  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{MERGING_LINK}\" drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {from_elsewhere} jump hostports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {from_here} jump hostports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {name} saddr {subnet} oifname != \"lo\" oifname != \"{LINK_PREFIX}*\" masquerade
    {name} saddr {{ {subnet}, {loopback} }} oifname \"{LINK_PREFIX}*\" ct status dnat snat to {gateway}
  }}
}}
"
        );
        text
    }
}

async fn run(script: &str, what: &'static str) -> Result<(), NftError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ends without reading, what it says on its standard error is the better message.
        stdin.write_all(script.as_bytes()).await.ok();
    }
    let output = child.wait_with_output().await.map_err(NftError::Run)?;
    succeeded(&output, what)
}

/// What nft writes when it is run with these arguments.
async fn list(arguments: &[&str], what: &'static str) -> Result<String, NftError> {
    let mut nft = Command::new("nft");
    nft.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = nft.output().await.map_err(NftError::Run)?;
    succeeded(&output, what)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeded(output: &Output, what: &'static str) -> Result<(), NftError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("").to_owned();
    Err(NftError::Refused { what, said })
}

#[cfg(test)]
mod tests {
    use protocol::plan::Plan;

    use super::{Family, Forward};
    use crate::ipam::{Block, Block6};

    #[test]
    fn only_our_tables_are_named_and_each_has_the_addresses_of_its_family() {
        let mapping = "8080:80/udp".parse().unwrap();
        let ns_ip = "10.18.0.66".parse().unwrap();
        let both = Forward { mapping, ns_ip, ns_ip6: Some("fc00::102".parse().unwrap()) };
        let v4 =
            Family::v4(Block::new("10.18.0.64".parse().unwrap(), &Plan::default()).unwrap()).rules(&[both]);
        let v6 = Family::v6(Block6::new("fc00::100".parse().unwrap()).unwrap());
        let without = v6.rules(&[Forward { ns_ip6: None, ..both }]);
        let v6 = v6.rules(&[both]);
        for (text, name, target, subnet, gateway) in [
            (&v4, "ip", "10.18.0.66:80", "10.18.0.64/26", "10.18.0.65"),
            (&v6, "ip6", "[fc00::102]:80", "fc00::100/120", "fc00::101"),
        ] {
            assert!(text.contains(&format!("    udp dport 8080 dnat to {target}\n")), "{text}");
            assert!(text.contains(&format!("{name} saddr {subnet} oifname != \"lo\"")), "{text}");
            assert!(text.contains(&format!("ct status dnat snat to {gateway}\n")), "{text}");
            assert!(!text.contains("flush"));
            assert_eq!(text.matches("table ").count(), text.matches(&format!("table {name} hypha")).count());
        }
        assert!(!without.contains("8080"), "{without}");
    }
}
