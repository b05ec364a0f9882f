//! Packages of Debian and Ubuntu.

use anyhow::Result;

use crate::process::{self, Process};
use crate::progress::say;
use crate::rights;

/// Packages whose service would run from now on, though every node starts its own, with that service. Installed by us, they
/// stay off; found installed, they are none of our business.
const SERVICES: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("docker-registry", "docker-registry"),
    ("etcd-server", "etcd"),
    ("mosquitto", "mosquitto"),
];

/// Runs apt-get without starting services. `policy-rc.d` is the file by which Debian lets an administrator say
/// so; it is there only as long as apt runs, also when somebody presses Ctrl-C.
const WITHOUT_SERVICES: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\n# Written by cargo xtask setup for as long as apt-get runs.\nexit 101\n' >$policy
    chmod 755 $policy
fi
apt-get "$@"
"#;

const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

pub(crate) fn is_usable() -> bool {
    rights::is_root() && is_there()
}

pub(crate) fn is_there() -> bool {
    process::find("apt-get").is_some()
}

/// Fetches the lists of what there is. Without it a fresh image knows no package, an old one asks for versions
/// that are gone.
pub(crate) fn update() -> Result<()> {
    apt_get(&["update"]).run_quietly()
}

/// Whether the distribution has all of these, as far as its lists on this machine tell.
pub(crate) fn has_all(packages: &[&str]) -> bool {
    let known =
        |package: &&str| Process::new("apt-cache").args(["show", "--no-all-versions", package]).succeeds();
    packages.iter().all(known)
}

/// What a person types who has the rights that we lack.
pub(crate) fn by_hand(packages: &[&str]) -> String {
    format!("as root: apt-get install --no-install-recommends {}", packages.join(" "))
}

pub(crate) fn install(packages: &[&str]) -> Result<()> {
    apt_get(&[&INSTALL, packages].concat()).run_quietly()?;
    let ours = SERVICES.into_iter().filter(|(package, _)| packages.contains(package));
    let services: Vec<_> = ours.map(|(_, service)| service).collect();
    if !services.is_empty() && process::find("systemctl").is_some() {
        say(format_args!("    their services stay off: systemctl disable {}", services.join(" ")));
        Process::new("systemctl").args(["disable", "--quiet"]).args(services).run_quietly()?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Process {
    Process::new("sh")
        .args(["-c", WITHOUT_SERVICES, "apt-get", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .shown_as(format!("apt-get {}", arguments.join(" ")))
}
