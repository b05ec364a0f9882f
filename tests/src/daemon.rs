//! A daemon as its operator sees it: a built program that runs in a node's network namespace and writes a log file.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::process;

/// How long a daemon may take for a clean stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const SHOWN_LINES: usize = 10;

/// How to start a daemon, again and again.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Says which one it is in messages: `worker1/netmanager`.
    pub name: String,
    pub netns: Arc<Netns>,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// Appended to, over all restarts.
    pub log: PathBuf,
}

impl Recipe {
    /// The command, with both outputs going to the log, in a process group of its own: Ctrl-C at the terminal reaches
    /// the test, which then stops its daemons in order.
    pub fn command(&self) -> Result<Command> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone().context("duplicate a log file")?;
        let mut command = self.netns.command(&self.program)?;
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        Ok(command)
    }

    pub fn start(self) -> Result<Daemon> {
        let child = self.spawn()?;
        Ok(Daemon { recipe: self, child })
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = self.command()?;
        command.spawn().with_context(|| format!("start {}: `{}`", self.name, process::shown(&command)))
    }

    /// The end of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// A running daemon. Stopped when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    recipe: Recipe,
    child: Child,
}

impl Daemon {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of the log, when the daemon has ended by itself.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("look at a daemon")? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended by itself with {status}; the end of {}:\n{}",
                self.recipe.name,
                self.recipe.log.display(),
                self.recipe.log_tail()
            ),
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.recipe.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.recipe.name))?;
        Ok(())
    }

    /// Asks for a clean stop and waits for it.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        process::signal(self.pid(), Signal::SIGTERM)?;
        match process::wait_within(&mut self.child, STOP_LIMIT)? {
            Some(status) => Ok(status),
            None => {
                self.kill()?;
                bail!("{} did not stop within {} s of SIGTERM", self.recipe.name, STOP_LIMIT.as_secs())
            }
        }
    }

    /// Starts the daemon anew, as it was started before. It must have been killed or terminated.
    pub fn start_again(&mut self) -> Result<()> {
        let ended = self.child.try_wait().context("look at a daemon")?.is_some();
        ensure!(ended, "{} still runs", self.recipe.name);
        self.child = self.recipe.spawn()?;
        Ok(())
    }

    /// Starts a second daemon in the same way and gives how that ended, with what it said.
    pub fn start_second(&self) -> Result<(ExitStatus, String)> {
        let mut recipe = self.recipe.clone();
        recipe.log = self.recipe.log.with_extension("second.log");
        let mut second = recipe.start()?;
        match process::wait_within(&mut second.child, STOP_LIMIT)? {
            Some(status) => Ok((status, second.recipe.log_tail())),
            None => bail!("a second {} runs beside the first", self.recipe.name),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate().ok();
        }
    }
}

/// Where the programs under test are: `HYPHA_BIN_DIR`, or the folder of the build that this test is from.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("HYPHA_BIN_DIR") {
        let path = PathBuf::from(directory).join(name);
        ensure!(path.exists(), "{} is not there (HYPHA_BIN_DIR names its folder)", path.display());
        return Ok(path);
    }
    let own = std::env::current_exe().context("find the path of this program")?;
    own.ancestors().map(|directory| directory.join(name)).find(|path| path.is_file()).with_context(|| {
        format!("{name} is not in a folder above {}: run `cargo xtask build`", own.display())
    })
}
