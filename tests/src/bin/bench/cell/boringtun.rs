//! WireGuard as a process on each node: `boringtun-cli`, configured over its socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::running::{Running, find};
use super::{Bed, Overlay, Pair, plain};
use crate::subject::Underlay;

/// 1500 without 80 bytes, as WireGuard's own tools set it.
const MTU: u16 = 1420;
const PORT: u16 = 51_820;
/// Private and public keys. They are known to everybody (RFC 7748, 6.1) and guard nothing: what they encrypt never leaves
/// this machine.
const KEYS: [[&str; 2]; 2] = [
    [
        "77076d0a7318a57d3c16c17251b26645d6d92eb5e0de5e3bb04c33d3c0bfd0f5",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ],
    [
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ],
];

pub(super) fn build(pair: Pair, underlay: Underlay) -> Result<Bed> {
    let program = find("boringtun-cli")?;
    let folder = tempfile::Builder::new().prefix("hypha-boringtun-").tempdir().context("make a folder")?;
    let (client, server, target) = plain::containers(&pair, underlay, MTU)?;
    let mut programs = Vec::new();
    for (own, other) in [(0, 1), (1, 0)] {
        let device = name();
        let node = &pair.nodes[own];
        let mut command = node.command(&program)?;
        command.args(["--foreground", "--disable-drop-privileges", &device]);
        let mut running = Running::start(command, &folder.path().join(format!("{own}.log")), Stdio::null())?;
        configure(&mut running, &device, own, &format!("{}:{PORT}", pair.address(other)))?;
        programs.push(running);
        node.ip(&format!("link set {device} mtu {MTU} up"))?;
        node.ip(&format!("route add {} dev {device}", plain::SUBNETS[other]))?;
    }
    Ok(Bed { target, overlay: Overlay::Programs { programs, _folder: folder }, client, server, pair })
}

/// The sockets of all devices lie in one folder, whatever namespace a device is in.
fn name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("hb{}n{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn configure(running: &mut Running, device: &str, own: usize, endpoint: &str) -> Result<()> {
    let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
    let what = format!("boringtun to listen at {}", socket.display());
    let mut stream = integration::eventually(Duration::from_secs(5), &what, || {
        running.expect_running().map_err(|error| format!("{error:#}"))?;
        UnixStream::connect(&socket).map_err(|error| error.to_string())
    })?;
    let ([private, _], [_, public]) = (KEYS[own], KEYS[1 - own]);
    let subnet = plain::SUBNETS[1 - own];
    let request = format!(
        "set=1\nprivate_key={private}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={public}\nendpoint={endpoint}\nallowed_ip={subnet}\n\n"
    );
    stream.write_all(request.as_bytes()).context("configure boringtun")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("hear what boringtun says to its configuration")?;
    ensure!(answer.trim() == "errno=0", "boringtun does not take its configuration: {answer}");
    Ok(())
}
