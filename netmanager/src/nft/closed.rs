//! A UDP port of this node to which nobody may send anything, in a table of its own: it is needed for as long as something
//! in the kernel listens there, whether there is a block of addresses or not.
//!
//! The rule stands where packets come that are for this node itself, put together if they were fragments, and by whatever
//! way they have come. What is forwarded does not get there.

use super::{NftError, is_absent, list, run};

/// The table's name; its family is `inet`.
pub const CLOSED: &str = "hypha-fou";

/// Closes the port. One that is closed is not touched.
///
/// # Errors
/// When `nft` cannot be run or refuses the rule.
pub async fn close(port: u16) -> Result<(), NftError> {
    if is_closed(port).await? { Ok(()) } else { run(&rules(port), "the rule of table inet hypha-fou").await }
}

/// Takes the table away. Says whether there was one.
///
/// # Errors
/// When `nft` cannot be run, or refuses.
pub async fn reopen() -> Result<bool, NftError> {
    match run(&format!("delete table inet {CLOSED}\n"), "to delete table inet hypha-fou").await {
        Ok(()) => Ok(true),
        Err(NftError::Refused { said, .. }) if is_absent(&said) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn is_closed(port: u16) -> Result<bool, NftError> {
    match list(&["list", "chain", "inet", CLOSED, "input"], "to list table inet hypha-fou").await {
        Ok(chain) => Ok(drops(&chain, port)),
        Err(NftError::Refused { said, .. }) if is_absent(&said) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the chain is as [`rules`] have it.
fn drops(chain: &str, port: u16) -> bool {
    chain.contains("type filter hook input ") && chain.contains(&rule(port))
}

fn rule(port: u16) -> String {
    format!("udp dport {port} drop")
}

fn rules(port: u16) -> String {
    let rule = rule(port);
    // Deleting what may not exist is an error, adding what exists is not.
    format!(
        "table inet {CLOSED}
delete table inet {CLOSED}
table inet {CLOSED} {{
  chain input {{
    type filter hook input priority raw; policy accept;
    {rule}
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::{drops, rules};

    #[test]
    fn a_chain_without_the_rule_closes_nothing() {
        // As nft 1.0.6 shows it.
        let shown = "table inet hypha-fou {\n\tchain input {\n\t\ttype filter hook input priority raw; policy accept;\n\
                     \t\tudp dport 50103 drop\n\t}\n}\n";
        assert!(drops(shown, 50103));
        assert!(!drops(shown, 50104) && !drops(&shown.replace(" drop", " accept"), 50103));
        assert!(drops(&rules(50103), 50103));
    }
}
