//! What the machine around the data plane has: uplink, nftables, other firewalls.

use std::fs;

use netmanager_common::tunnel::{INNER_MTU, OVERHEAD, inner_mtu};

use super::{Check, Verdict};
use crate::config::Config;
use crate::error::chain;
use crate::net::{Links, NetError, Wish};
use crate::nft;

pub(super) async fn examine(config: Option<&Config>) -> Vec<Check> {
    let mut checks = vec![configuration(config)];
    checks.extend(uplink(config).await);
    checks.push(reverse_path());
    checks.extend(firewall().await);
    checks
}

/// The check of the configuration.
pub const CONFIGURATION: &str = "machine.configuration";

/// What that check says of a file that cannot be used.
#[must_use]
pub fn wrong_configuration(evidence: String) -> Check {
    let effect = "the daemon does not start";
    Check::gap(CONFIGURATION, Verdict::Broken, evidence, effect, "correct the file as the evidence says")
}

fn configuration(config: Option<&Config>) -> Check {
    let id = CONFIGURATION;
    match config {
        None => Check::gap(
            id,
            Verdict::Degraded,
            "no configuration was read",
            "the daemon does not start without",
            "write /etc/netmanager/netcfg.json, or name it with -c; the README has an example",
        ),
        Some(config) if config.unknown_keys.is_empty() => Check::fine(id, "read, no unknown keys"),
        Some(config) => Check::gap(
            id,
            Verdict::Degraded,
            format!("unknown keys: {}", config.unknown_keys.join(", ")),
            "they are ignored",
            "correct or remove them",
        ),
    }
}

async fn uplink(config: Option<&Config>) -> Vec<Check> {
    let id = "machine.uplink";
    let wish = Wish {
        named: config.and_then(|config| config.default_interface.as_deref()),
        public: config.and_then(|config| config.public_address),
        current: None,
        towards: config.and_then(|config| config.cluster.as_deref()?.parse().ok()),
    };
    let uplink = match find(wish).await {
        Ok(uplink) => uplink,
        Err(error) => {
            let remedy = "see the evidence; an interface can be named as DefaultInterface in netcfg.json";
            return vec![Check::gap(
                id,
                Verdict::Broken,
                chain(&error),
                "other nodes are not reached",
                remedy,
            )];
        }
    };
    let mut checks = vec![Check::fine(id, format!("{} with {}", uplink.name, uplink.address))];
    let id = "machine.mtu";
    let inside = inner_mtu(uplink.mtu, OVERHEAD);
    let evidence = format!("{} carries {} bytes, containers' packets {inside}", uplink.name, uplink.mtu);
    checks.push(if inside < INNER_MTU {
        let effect = format!("Oakestra's nodes send up to {INNER_MTU}, which does not fit");
        Check::gap(
            id,
            Verdict::Degraded,
            evidence,
            effect,
            format!("ip link set {} mtu 1500, if the network carries it", uplink.name),
        )
    } else {
        Check::fine(id, evidence)
    });
    checks
}

async fn find(wish: Wish<'_>) -> Result<crate::net::Uplink, NetError> {
    Links::open()?.uplink(wish).await
}

/// `net::sysctl` says why it does not matter.
fn reverse_path() -> Check {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or_default();
    Check::fine("machine.rp_filter", format!("{}; any setting lets the overlay pass", setting.trim()))
}

async fn firewall() -> Vec<Check> {
    let chains = match nft::dropping_chains().await {
        Ok(chains) => chains,
        Err(error) => {
            let effect = "a node cannot register: containers would not reach the world";
            return vec![Check::gap(
                "machine.nft",
                Verdict::Broken,
                chain(&error),
                effect,
                "install the package nftables, and run it as root",
            )];
        }
    };
    let id = "machine.forwarding";
    let mut checks = vec![Check::fine("machine.nft", "nft lists the rules")];
    if chains.is_empty() {
        checks.push(Check::fine(id, "no firewall drops what containers send to the world"));
    }
    checks.extend(chains.iter().map(|chain| {
        let effect = "what containers send to the world, and what comes through host ports, vanishes";
        Check::gap(
            id,
            Verdict::Degraded,
            format!("chain {chain} drops what it does not accept"),
            effect,
            chain.remedy(),
        )
    }));
    checks
}
