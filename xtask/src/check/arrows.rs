//! Who may depend on whom: between crates by their manifests, inside of them by the text of their sources.
//!
//! The three daemons never import each other, so only netmanager needs the rights to change the network. A library
//! that talks to the kernel or to containerd has one home, where it is wrapped in words of the domain.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::source;
use crate::process::Process;

/// Each package of the workspace, and those of the workspace that it may depend on.
const OURS: [(&str, &[&str]); 9] = [
    ("integration", &["netmanager", "netmanager-common", "node-engine", "orchestrator", "protocol"]),
    ("netmanager", &["netmanager-common", "netmanager-ebpf-builder", "protocol"]),
    ("netmanager-common", &[]),
    ("netmanager-ebpf", &["netmanager-common"]),
    ("netmanager-ebpf-builder", &[]),
    ("node-engine", &["protocol"]),
    ("orchestrator", &["protocol"]),
    ("protocol", &[]),
    ("xtask", &["netmanager-ebpf-builder"]),
];

/// Packages of others, and the only ones of ours that may depend on them.
const OTHERS: [(&str, &[&str]); 7] = [
    ("aya", &["integration", "netmanager", "netmanager-common"]),
    ("aya-ebpf", &["netmanager-ebpf"]),
    ("containerd-client", &["node-engine"]),
    ("netlink-packet-route", &["netmanager"]),
    ("rmqtt", &["orchestrator"]),
    ("rtnetlink", &["netmanager"]),
    ("rusqlite", &["orchestrator"]),
];

/// Crates that only one module of a daemon names: crate, the daemon's sources, the module.
const HOMES: [(&str, &str, &str); 4] = [
    ("aya", "netmanager/src/", "netmanager/src/datapath"),
    ("netlink_packet_route", "netmanager/src/", "netmanager/src/net"),
    ("rtnetlink", "netmanager/src/", "netmanager/src/net"),
    ("containerd_client", "node-engine/src/", "node-engine/src/runtime"),
];

pub(crate) fn check() -> Result<()> {
    let metadata =
        Process::cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]).read()?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata printed other than JSON")?;
    let mut wrong = Vec::new();
    for (package, dependency) in dependencies(&metadata).context("cargo metadata has another shape")? {
        wrong.extend(wrong_arrow(package, dependency));
    }
    for source in source::all()? {
        wrong.extend(wrong_home(&source.path, &source.text));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "these dependencies are not allowed (xtask/src/check/arrows.rs says which are):\n{}",
        wrong.join("\n")
    )
}

/// Every pair of a package of the workspace and something it depends on, of whatever kind.
fn dependencies(metadata: &Value) -> Option<Vec<(&str, &str)>> {
    let mut pairs = Vec::new();
    for package in metadata.get("packages")?.as_array()? {
        let name = package.get("name")?.as_str()?;
        for dependency in package.get("dependencies")?.as_array()? {
            pairs.push((name, dependency.get("name")?.as_str()?));
        }
    }
    Some(pairs)
}

fn wrong_arrow(package: &str, dependency: &str) -> Option<String> {
    let Some((_, allowed)) = OURS.iter().find(|(name, _)| *name == package) else {
        return Some(format!("    {package} is not in the list of packages"));
    };
    let is_ours = OURS.iter().any(|(name, _)| *name == dependency);
    let users = OTHERS.iter().find(|(name, _)| *name == dependency).map(|(_, users)| users);
    let is_allowed = if is_ours {
        allowed.contains(&dependency)
    } else {
        users.is_none_or(|users| users.contains(&package))
    };
    (!is_allowed).then(|| format!("    {package} -> {dependency}"))
}

fn wrong_home(path: &str, text: &str) -> Option<String> {
    let (name, _, home) = HOMES.iter().find(|(name, daemon, home)| {
        path.starts_with(daemon) && !path.starts_with(home) && names(text, name)
    })?;
    Some(format!("    {path} names {name}, which belongs to {home}"))
}

/// Whether code, not a comment, has a path that begins with the crate.
fn names(text: &str, name: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let path = format!("{name}::");
    code.flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')))
        .any(|word| word.trim_start_matches(':').starts_with(&path))
}

#[cfg(test)]
mod tests {
    use super::{wrong_arrow, wrong_home};

    #[test]
    fn daemons_do_not_know_each_other() {
        assert!(wrong_arrow("node-engine", "netmanager").is_some());
        assert!(wrong_arrow("node-engine", "protocol").is_none());
        assert!(wrong_arrow("node-engine", "tokio").is_none());
        assert!(wrong_arrow("orchestrator", "aya").is_some());
        assert!(wrong_arrow("newcomer", "tokio").is_some());
    }

    #[test]
    fn a_crate_is_named_only_at_home() {
        let text = "//! Not aya::Ebpf.\nuse aya::Ebpf;\n";
        assert!(wrong_home("netmanager/src/app.rs", text).is_some());
        assert!(wrong_home("netmanager/src/datapath/load.rs", text).is_none());
        assert!(wrong_home("tests/datapath/main.rs", text).is_none());
        assert!(wrong_home("netmanager/src/app.rs", "/// aya::Ebpf\nfn f(x: maya::Y) {}\n").is_none());
    }
}
