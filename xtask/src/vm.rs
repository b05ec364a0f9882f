//! `cargo xtask test vm`: the tests of the data plane on Debian's kernel, in QEMU.
//!
//! The machine is emulated, so that it runs where there is no KVM, and as anybody. All its files are in the archive that
//! the kernel unpacks at its start ([`image`]); the answer comes over the serial line.

mod image;
pub(crate) mod kernel;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::progress::{say, step};
use crate::workspace::{self, SELECTION};

pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What begins the lines of the machine's own; before the first of them speaks its firmware.
const MARK: &str = "vm: ";
/// The last of these lines, before the exit code of the tests.
const ENDED: &str = "vm: the tests ended with ";
/// After these many seconds the machine hangs. All tests take it an hour, on a machine that has nothing else to do.
const LIMIT: &str = "7200";
/// These say most about a machine without IPv6, in little time.
const WITHOUT_IPV6: [&str; 3] = ["container::", "live::", "odd_kernel::"];

/// Boots twice: for all tests, and for some on a kernel without IPv6. Each line of the harness goes to `line`. Says whether
/// all went well.
pub(crate) fn run(
    filter: Option<&str>,
    harness: &[String],
    mut line: impl FnMut(&str) -> Result<()>,
) -> Result<bool> {
    let kernel = kernel::find().context("Debian's kernel is not there: cargo xtask setup --for vm")?;
    let program = step("test build, optimised", test_program)?;
    let mut boot = |command_line: &str, filters: &[&str]| {
        let arguments = filters.iter().copied().chain(harness.iter().map(String::as_str));
        let archive = step("image", || image::make(&kernel, &program, arguments))?;
        say(format_args!("booting {} {command_line}", kernel.release));
        boot(&kernel.image, &archive, command_line, &mut line)
    };
    let whole = boot("", filter.as_slice())?;
    // A filter is somebody's who looks for one thing.
    let without_ipv6 = filter.is_some() || boot("ipv6.disable=1", &WITHOUT_IPV6)?;
    Ok(whole && without_ipv6)
}

fn boot(
    kernel: &Path,
    archive: &Path,
    command_line: &str,
    line: &mut impl FnMut(&str) -> Result<()>,
) -> Result<bool> {
    let (mut begun, mut succeeded) = (false, None);
    let qemu = Process::new("timeout").args([LIMIT, QEMU, "-accel", "tcg,thread=multi", "-cpu", "max"]);
    let qemu = qemu.args(["-smp", "2", "-m", "3072", "-nographic", "-no-reboot", "-nic", "none"]);
    let qemu = qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(archive);
    let qemu = qemu.arg("-append").arg(format!("console=ttyS0 panic=-1 quiet {command_line}"));
    let status = qemu.run_by_line(|said| {
        let said = said.trim_end();
        begun = begun || said.starts_with(MARK);
        if let Some(code) = said.strip_prefix(ENDED) {
            succeeded = Some(code == "0");
        }
        if begun { line(said) } else { Ok(()) }
    })?;
    ensure!(status.success(), "{QEMU} ended with {status}");
    succeeded.context("the machine stopped before the tests ended")
}

/// The tests of the data plane, optimised: each of their instructions is emulated.
fn test_program() -> Result<PathBuf> {
    let cargo = Process::cargo().args(["test", "--locked", "--release"]).args(SELECTION);
    let said = cargo.args(["--test", "datapath", "--no-run", "--message-format", "json"]).read()?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "datapath");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo does not say where the tests of the data plane are")
}

/// Where all that belongs to the machine lies.
fn directory() -> PathBuf {
    workspace::target().join("vm")
}
