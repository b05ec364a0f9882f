//! Our nftables table: containers reach the world under the node's address, and host ports lead into containers.
//!
//! The whole table is written in one transaction each time, so there is no moment without rules and no rule of ours
//! can be left over. No other table is ever touched.
//!
//! Whoever dials a host port is seen by the container under its own address, with two exceptions that are seen as the
//! container's gateway. A process of the node that dials 127.0.0.1: no packet with that source may leave the node. And
//! the node's own containers: their answers would go from container to container, past the translation back.

mod foreign;

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Output, Stdio};

use protocol::address::SUBNET_PREFIX;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::ipam::Block;
use crate::net::LINK_PREFIX;
use crate::ports::PortMapping;

pub use self::foreign::{DroppingChain, dropping_chains};

/// The table's name; its family is `ip`.
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
}

/// Makes the table as it must be now, whatever it was before.
///
/// # Errors
/// When `nft` cannot be run or refuses the rules: then the table is as before.
pub async fn apply(block: Block, forwards: &[Forward]) -> Result<(), NftError> {
    run(&rules(block, forwards), "the rules of table ip hypha").await
}

/// Removes the table. Says whether there was one.
///
/// # Errors
/// When `nft` cannot be run.
pub async fn remove() -> Result<bool, NftError> {
    match run(&format!("delete table ip {TABLE}\n"), "to delete table ip hypha").await {
        Ok(()) => Ok(true),
        Err(NftError::Refused { said, .. }) if said.contains("No such file or directory") => Ok(false),
        Err(error) => Err(error),
    }
}

fn rules(block: Block, forwards: &[Forward]) -> String {
    let subnet = format!("{}/{SUBNET_PREFIX}", block.first());
    let gateway = block.gateway();
    // Deleting what may not exist is an error, adding what exists is not.
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    text.push_str("  chain hostports {\n");
    for Forward { mapping, ns_ip } in forwards {
        let PortMapping { transport, host, container } = mapping;
        // Writing to a String cannot fail.
        let _ok = writeln!(text, "    {transport} dport {host} dnat to {ns_ip}:{container}");
    }
    let _ok = write!(
        text,
        "  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local ip daddr != 127.0.0.0/8 jump hostports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump hostports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != \"lo\" oifname != \"{LINK_PREFIX}*\" masquerade
    ip saddr {{ {subnet}, 127.0.0.0/8 }} oifname \"{LINK_PREFIX}*\" ct status dnat snat to {gateway}
  }}
}}
"
    );
    text
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

fn succeeded(output: &Output, what: &'static str) -> Result<(), NftError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("").to_owned();
    Err(NftError::Refused { what, said })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{Forward, rules};
    use crate::ipam::Block;

    #[test]
    fn only_our_table_is_named() {
        let block = Block::new(Ipv4Addr::new(10, 18, 0, 64)).unwrap();
        let forward =
            Forward { mapping: "8080:80/udp".parse().unwrap(), ns_ip: Ipv4Addr::new(10, 18, 0, 66) };
        let text = rules(block, &[forward]);
        assert!(text.contains("    udp dport 8080 dnat to 10.18.0.66:80\n"), "{text}");
        assert!(text.contains("ip saddr 10.18.0.64/26 oifname != \"lo\""), "{text}");
        assert!(text.contains("ct status dnat snat to 10.18.0.65\n"), "{text}");
        assert!(!text.contains("flush"));
        assert_eq!(text.matches("table ip ").count(), text.matches("table ip hypha").count());
    }
}
