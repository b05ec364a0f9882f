//! What the kernel can do.

use std::fs;
use std::path::Path;

use super::{Check, Verdict};
use crate::app::Paths;
use crate::bpffs;
use crate::datapath::{self, Hook};
use crate::error::chain;
use crate::plane::Choice;
use crate::{selftest, userspace};

/// The oldest kernel that has all that the programs use.
const OLDEST: (u32, u32) = (5, 15);

/// With a data plane in user space it does not matter what the kernel says of programs.
pub(super) fn examine(paths: &Paths, choice: Choice) -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut checks = vec![version(release.trim())];
    if choice == Choice::Userspace {
        checks.extend([packet_sockets(), ipv6()]);
    } else {
        let programs = programs(choice);
        // Else it cannot be tried.
        let may_try = programs.verdict == Verdict::Fine && bpffs::is_bpffs(&paths.bpffs);
        checks.push(programs);
        checks.extend(may_try.then(|| packets(&paths.bpffs, choice)));
        checks.extend([jit(), hook(), file_system(&paths.bpffs), tap(), ipv6()]);
    }
    checks
}

fn version(release: &str) -> Check {
    let id = "kernel.version";
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let evidence = format!("Linux {release}");
    if version >= OLDEST {
        return Check::fine(id, evidence);
    }
    let effect = "the data plane may not load";
    Check::gap(id, Verdict::Degraded, evidence, effect, "install Linux 5.15 or later")
}

/// Loading them asks for everything at once: the system call, the rights, the helpers (`redirect_peer`,
/// `redirect_neigh`), the verifier.
fn programs(choice: Choice) -> Check {
    let id = "kernel.programs";
    let loaded = datapath::try_to_load();
    let Err(error) = loaded else { return Check::fine(id, "the kernel takes all programs") };
    let (verdict, effect) = without_programs(choice, userspace::try_to_open().is_ok());
    let remedy =
        "run it as root; the kernel needs CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS";
    Check::gap(id, verdict, chain(&error), effect, remedy)
}

/// Tries the programs with packets, in a network namespace of its own.
fn packets(pin_dir: &Path, choice: Choice) -> Check {
    let id = "kernel.packets";
    let error = match selftest::run(pin_dir) {
        Ok(()) => return Check::fine(id, selftest::evidence()),
        Err(error) => error,
    };
    if !error.is_about_packets() {
        let remedy = "run it as root, with /dev/net/tun (modprobe tun)";
        let effect = "whether packets come out of the programs right is not known";
        return Check::gap(id, Verdict::Degraded, chain(&error), effect, remedy);
    }
    let effect = match choice {
        Choice::Ebpf => "packets between nodes are lost or broken",
        _ => "netmanager forwards packets itself: with less throughput, more CPU, and only while it runs",
    };
    let remedy = "install another kernel, and report this one with what is said here";
    Check::gap(
        id,
        if choice == Choice::Ebpf { Verdict::Broken } else { Verdict::Degraded },
        chain(&error),
        effect,
        remedy,
    )
}

/// What it means that the kernel does not take them.
fn without_programs(choice: Choice, has_packet_sockets: bool) -> (Verdict, &'static str) {
    match (choice, has_packet_sockets) {
        (Choice::Ebpf, _) => (Verdict::Broken, "netmanager does not start with the data plane \"ebpf\""),
        (_, true) => (
            Verdict::Degraded,
            "netmanager forwards packets itself: with less throughput, more CPU, and only while it runs",
        ),
        (_, false) => (Verdict::Broken, "no data plane: containers are not connected"),
    }
}

fn packet_sockets() -> Check {
    let id = "kernel.packet_sockets";
    match userspace::try_to_open() {
        Ok(()) => Check::fine(id, "netmanager is to forward packets itself, and can"),
        Err(error) => {
            let effect = "netmanager does not start with the data plane \"userspace\"";
            Check::gap(
                id,
                Verdict::Broken,
                chain(&error),
                effect,
                "run it as root; the kernel needs CONFIG_PACKET",
            )
        }
    }
}

fn jit() -> Check {
    let id = "kernel.jit";
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => Check::gap(
            id,
            Verdict::Degraded,
            "programs are interpreted",
            "each packet costs several times the CPU",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Check::fine(id, "programs are compiled"),
        Err(_) => Check::fine(id, "not shown in this network namespace"),
    }
}

fn hook() -> Check {
    let id = "kernel.hook";
    match Hook::probe() {
        Hook::Tcx => Check::fine(id, "tcx"),
        Hook::Clsact => Check::fine(id, "clsact filters; tcx needs Linux 6.6"),
    }
}

fn file_system(dir: &Path) -> Check {
    let id = "kernel.bpffs";
    let shown = dir.display();
    if bpffs::is_bpffs(dir) {
        return Check::fine(id, format!("{shown} is in a BPF file system"));
    }
    if bpffs::can_be_mounted(dir) {
        return Check::fine(id, format!("not mounted yet at {}; netmanager does it", bpffs::MOUNT_POINT));
    }
    let effect = "netmanager does not start";
    Check::gap(
        id,
        Verdict::Broken,
        format!("{shown} is in none"),
        effect,
        "give it a --bpffs below /sys/fs/bpf",
    )
}

fn tap() -> Check {
    let id = "kernel.tun";
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Check::fine(id, "TAP devices can be made"),
        Err(error) => Check::gap(
            id,
            Verdict::Degraded,
            format!("/dev/net/tun: {error}"),
            "first packets to a service are dropped, not held, and nobody is told by ICMP why",
            "modprobe tun",
        ),
    }
}

fn ipv6() -> Check {
    let id = "kernel.ipv6";
    let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    let (evidence, remedy) = match disabled.as_deref().map(str::trim) {
        Ok("0") => return Check::fine(id, "IPv6 is there"),
        Ok(_) => ("IPv6 is disabled", "sysctl -w net.ipv6.conf.all.disable_ipv6=0"),
        Err(_) => ("the kernel has no IPv6", "modprobe ipv6, or boot without ipv6.disable=1"),
    };
    Check::gap(id, Verdict::Degraded, evidence, "containers get no IPv6 addresses", remedy)
}

#[cfg(test)]
mod tests {
    use super::{Verdict, version, without_programs};
    use crate::plane::Choice;

    #[test]
    fn kernels_are_compared_by_their_numbers() {
        for release in ["5.15.0", "6.1.0-18-amd64", "6.18", "10.0.1"] {
            assert_eq!(version(release).verdict, Verdict::Fine, "{release}");
        }
        for release in ["5.10.0-28-arm64", "5.4", "4.19.0", ""] {
            assert_eq!(version(release).verdict, Verdict::Degraded, "{release}");
        }
    }
    #[test]
    fn without_programs_it_goes_on_in_user_space_unless_that_is_ruled_out() {
        for (choice, has_sockets, verdict) in [
            (Choice::Auto, true, Verdict::Degraded),
            (Choice::Auto, false, Verdict::Broken),
            (Choice::Ebpf, true, Verdict::Broken),
            (Choice::Ebpf, false, Verdict::Broken),
        ] {
            assert_eq!(without_programs(choice, has_sockets).0, verdict, "{choice:?} {has_sockets}");
        }
    }
}
