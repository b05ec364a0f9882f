//! What this process may do.

use anyhow::{Result, bail};

/// The capabilities that loading programs, making namespaces and running containers take, by number.
const NEEDED: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Fails when `what` cannot work with the rights of this process.
pub(crate) fn require(what: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "{what} needs root: it makes network namespaces and loads BPF programs; try `sudo -E env \"PATH=$PATH\" cargo xtask ...`"
        );
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let held = effective_capabilities(&status).unwrap_or(u64::MAX);
    let missing: Vec<_> =
        NEEDED.iter().filter(|(number, _)| held & (1 << number) == 0).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        bail!("{what} needs {}: root of this container is not root of the machine", missing.join(", "));
    }
    Ok(())
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::effective_capabilities;

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_feff_ffff));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
