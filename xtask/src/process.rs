//! Running other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A program with its arguments, to be run once in the root of the workspace, without standard input.
#[derive(Debug)]
pub(crate) struct Process {
    command: Command,
    shown: Option<String>,
}

impl Process {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(workspace::root()).stdin(Stdio::null());
        Self { command, shown: None }
    }

    /// The cargo that runs this program.
    ///
    /// It must not see the variables that cargo has set for `xtask` as a package: build scripts that watch them
    /// would run again whenever people change between `cargo xtask build` and `cargo build`.
    pub(crate) fn cargo() -> Self {
        let mut process = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for (name, _) in std::env::vars_os() {
            let of_this_package =
                |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
            if name.to_str().is_some_and(of_this_package) {
                process.command.env_remove(name);
            }
        }
        process
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Says in errors what is run, where the arguments would hide it.
    pub(crate) fn shown_as(mut self, line: String) -> Self {
        self.shown = Some(line);
        self
    }

    /// Runs a program that tells the user itself what it does.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self.command.status().with_context(|| self.cannot_run())?;
        if status.success() { Ok(()) } else { bail!("`{}` failed ({status})", self.line()) }
    }

    /// Becomes the program, which then gets what the user types, and Ctrl-C, for itself alone. Returns only if
    /// that fails.
    pub(crate) fn become_it(mut self) -> Result<()> {
        let error = self.command.stdin(Stdio::inherit()).exec();
        Err(error).with_context(|| self.cannot_run())
    }

    /// Runs a program silently. Its output is shown only when it fails.
    pub(crate) fn run_quietly(self) -> Result<()> {
        self.output().map(drop)
    }

    /// Runs a program for its answer on standard output. What it says on standard error is shown when it fails.
    pub(crate) fn read(self) -> Result<String> {
        let line = self.line();
        String::from_utf8(self.output()?.stdout).with_context(|| format!("`{line}` printed other than UTF-8"))
    }

    fn output(mut self) -> Result<Output> {
        let output = self.command.output().with_context(|| self.cannot_run())?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        bail!("`{}` failed ({}) and said:\n{}", self.line(), output.status, said.trim_end())
    }

    /// Runs a program for its success alone; one that is not there has none.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Runs a program and hands on each line of its standard output as soon as it is there.
    pub(crate) fn run_by_line(mut self, mut line: impl FnMut(&str) -> Result<()>) -> Result<ExitStatus> {
        let mut child = self.command.stdout(Stdio::piped()).spawn().with_context(|| self.cannot_run())?;
        let output = child.stdout.take().context("the pipe to the program is gone")?;
        for bytes in BufReader::new(output).split(b'\n') {
            let bytes = bytes.with_context(|| format!("cannot read what `{}` prints", self.line()))?;
            line(&String::from_utf8_lossy(&bytes))?;
        }
        child.wait().with_context(|| format!("cannot wait for `{}`", self.line()))
    }

    fn cannot_run(&self) -> String {
        format!("cannot run `{}`", self.line())
    }

    /// As one would type it.
    fn line(&self) -> String {
        if let Some(line) = &self.shown {
            return line.clone();
        }
        let program = Path::new(self.command.get_program());
        let program = program.file_name().unwrap_or(program.as_os_str());
        let words = std::iter::once(program).chain(self.command.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// Finds a program where the user's shell would, and where system programs lie even if it would not.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
