//! Chains of others that drop what this node forwards. Docker, ufw and firewalld set such a policy; what a container
//! sends to the world and what comes through a host port then vanishes, though every rule of ours is right. The node's
//! firewall is its owner's: we say what is missing and change nothing. The overlay does not pass through these chains.

use std::fmt;

use serde::Deserialize;

use super::{NftError, list};
use crate::net::LINK_PREFIX;

const LISTING: &str = "to list chains";

/// A chain that drops forwarded packets unless a rule of it accepts them, and has no rule for our links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    family: String,
    table: String,
    name: String,
}

impl DroppingChain {
    /// The commands that let the packets of containers through.
    #[must_use]
    pub fn remedy(&self) -> String {
        let accept = |side| format!("nft 'insert rule {self} {side} \"{LINK_PREFIX}*\" accept'");
        format!("{}; {}", accept("iifname"), accept("oifname"))
    }
}

impl fmt::Display for DroppingChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

/// The chains of this node that would drop what containers send to the world. One with a rule that names our links is
/// taken for one whose owner has seen to it.
///
/// # Errors
/// When `nft` cannot be run, or lists what we do not understand.
pub async fn dropping_chains() -> Result<Vec<DroppingChain>, NftError> {
    let mut dropping = Vec::new();
    for chain in by_policy(&list(&["-j", "list", "chains"], LISTING).await?).map_err(NftError::Listing)? {
        let DroppingChain { family, table, name } = &chain;
        let rules = list(&["list", "chain", family, table, name], LISTING).await?;
        if !rules.contains(&format!("\"{LINK_PREFIX}*\"")) {
            dropping.push(chain);
        }
    }
    Ok(dropping)
}

/// Those whose hook and policy forwarded IPv4 packets do not survive.
fn by_policy(listing: &str) -> Result<Vec<DroppingChain>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        chain: Option<Chain>,
    }
    #[derive(Deserialize)]
    struct Chain {
        family: String,
        table: String,
        name: String,
        hook: Option<String>,
        policy: Option<String>,
    }
    let Listing { nftables } = serde_json::from_str(listing)?;
    let chains = nftables.into_iter().filter_map(|item| item.chain);
    let dropping = chains.filter(|chain| {
        matches!(chain.family.as_str(), "ip" | "inet")
            && chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
    });
    Ok(dropping.map(|Chain { family, table, name, .. }| DroppingChain { family, table, name }).collect())
}

#[cfg(test)]
mod tests {
    use super::by_policy;

    #[test]
    fn only_a_forward_chain_with_policy_drop_for_ipv4_is_in_the_way() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter",
                "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "fine", "name": "pass", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}}]}"#;
        let chains = by_policy(listing).unwrap();
        assert_eq!(chains.len(), 1, "{chains:?}");
        assert_eq!(
            chains[0].remedy(),
            "nft 'insert rule ip filter FORWARD iifname \"hy*\" accept'; \
             nft 'insert rule ip filter FORWARD oifname \"hy*\" accept'"
        );
    }
}
