//! A program of somebody else on a node.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::process;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long it may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ended, with all that it has started in its process group, when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// What it says on standard error goes to `log`; on standard output, too, unless `read` is to have that.
    pub(crate) fn start(mut command: Command, log: &Path, read: Stdio) -> Result<Self> {
        let name = process::shown(&command);
        let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(read).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("start `{name}`"))?;
        Ok(Self { name, child })
    }

    /// The first line that it prints. It goes on afterwards.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let output: ChildStdout = self.child.stdout.take().context("its standard output is read already")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .with_context(|| format!("read what `{}` prints", self.name))?;
        ensure!(!line.is_empty(), "`{}` ended without a word", self.name);
        Ok(line.trim().to_owned())
    }

    /// Fails if it has ended.
    pub(crate) fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("look at `{}`", self.name))? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended with {status}", self.name),
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            killpg(Pid::from_raw(pid), signal).ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if !matches!(process::wait_within(&mut self.child, PATIENCE), Ok(Some(_))) {
            self.signal(Signal::SIGKILL);
            self.child.wait().ok();
        }
    }
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    let system = ["/usr/local/sbin", "/usr/sbin"].map(Into::into);
    std::env::split_paths(&path)
        .chain(system)
        .chain(home)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed"))
}
