//! Nebula (Debian's package of that name), a process on each node that routes the containers of the other one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use integration::process;

use super::running::{Running, find};
use super::{Bed, Overlay, Pair, plain};
use crate::subject::Underlay;

/// Its default.
const MTU: u16 = 1300;
const PORT: u16 = 4242;

pub(super) fn build(pair: Pair, underlay: Underlay) -> Result<Bed> {
    let (program, certificates) = (find("nebula")?, find("nebula-cert")?);
    let folder = tempfile::Builder::new().prefix("hypha-nebula-").tempdir().context("make a folder")?;
    let certify = |arguments: &[&str]| {
        process::output(Command::new(&certificates).current_dir(folder.path()).args(arguments)).map(drop)
    };
    certify(&["ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"])?;
    let (client, server, target) = plain::containers(&pair, underlay, MTU)?;
    let mut programs = Vec::new();
    for (own, other) in [(0, 1), (1, 0)] {
        let (name, address) = (format!("node{own}"), format!("{}/24", inside(own)));
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        certify(&[
            "sign",
            "-ca-crt",
            "ca.crt",
            "-ca-key",
            "ca.key",
            "-name",
            &name,
            "-ip",
            &address,
            "-subnets",
            plain::SUBNETS[own],
            "-out-crt",
            &certificate,
            "-out-key",
            &key,
        ])?;
        let path = folder.path().join(format!("{name}.yml"));
        fs::write(&path, configuration(&pair, folder.path(), &name, other))
            .context("write its configuration")?;
        let mut command = pair.nodes[own].command(&program)?;
        command.arg("-config").arg(&path);
        programs.push(Running::start(command, &folder.path().join(format!("{name}.log")), Stdio::null())?);
    }
    Ok(Bed { target, overlay: Overlay::Programs { programs, _folder: folder }, client, server, pair })
}

fn inside(node: usize) -> String {
    format!("10.209.0.{}", node + 1)
}

fn configuration(pair: &Pair, folder: &Path, name: &str, other: usize) -> String {
    let (folder, peer, subnet) = (folder.display(), inside(other), plain::SUBNETS[other]);
    let underlay = pair.address(other);
    format!(
        "pki: {{ca: {folder}/ca.crt, cert: {folder}/{name}.crt, key: {folder}/{name}.key}}
static_host_map: {{\"{peer}\": [\"{underlay}:{PORT}\"]}}
lighthouse: {{am_lighthouse: false}}
listen: {{host: 0.0.0.0, port: {PORT}}}
punchy: {{punch: false}}
tun:
  dev: nebula1
  mtu: {MTU}
  unsafe_routes:
    - {{route: {subnet}, via: {peer}}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
logging: {{level: warning}}
"
    )
}
