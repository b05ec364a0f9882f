//! Processes: run a program and keep what it said, see who lives, end what was left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::in_the_end;

/// No helper program has more time than this.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end and gives its standard output. An exit code other than 0 is an error that shows the
/// command and what it wrote; so is taking longer than a minute.
pub fn output(command: &mut Command) -> Result<String> {
    output_with_input(command, "")
}

/// As [`output`], for a program that may take longer.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    Ok(text(&succeeded(command, "", limit)?.stdout))
}

/// As [`output`], but gives what it wrote to its standard error first, as a person would see it.
pub fn transcript(command: &mut Command) -> Result<String> {
    let output = succeeded(command, "", LIMIT)?;
    Ok(text(&output.stderr) + &text(&output.stdout))
}

/// As [`output`], with this text as its standard input.
pub fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    Ok(text(&succeeded(command, input, LIMIT)?.stdout))
}

fn succeeded(command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
    let shown = shown(command);
    let output = finish_within(command, input, limit)?;
    if !output.status.success() {
        let said = text(&output.stdout) + text(&output.stderr).trim_end();
        bail!("`{shown}` ended with {}: {said}", output.status);
    }
    Ok(output)
}

fn text(written: &[u8]) -> String {
    String::from_utf8_lossy(written).into_owned()
}

/// Runs a command to its end, whatever its exit code. Taking longer than a minute is an error.
pub fn finish(command: &mut Command, input: &str) -> Result<Output> {
    finish_within(command, input, LIMIT)
}

fn finish_within(command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input says more by its exit code.
        stdin.write_all(input.as_bytes()).ok();
    }
    let status = wait_within(&mut child, limit)?;
    if status.is_none() {
        child.kill().with_context(|| format!("end `{shown}`"))?;
        child.wait().with_context(|| format!("wait for `{shown}`"))?;
    }
    let written = |pipe: JoinHandle<Vec<u8>>| pipe.join().unwrap_or_default();
    match status {
        Some(status) => Ok(Output { status, stdout: written(stdout), stderr: written(stderr) }),
        None => bail!("`{shown}` did not end within {} s", limit.as_secs()),
    }
}

/// Waits until a child ends; `None` when it still runs after `limit`.
pub fn wait_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().context("wait for a process")?;
        if status.is_some() || start.elapsed() >= limit {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a pipe to its end, beside the reading of others. What cannot be read counts as not written.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

/// The command as a person would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a process of this number runs (a zombie does not).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Sends `signal`; a process that is gone already is fine.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).context("process number")?;
    match kill(Pid::from_raw(raw), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("send {signal} to process {pid}")),
    }
}

/// Every process, with its parent.
#[must_use]
pub fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect()
}

/// These processes and all that descend from them.
#[must_use]
pub fn with_descendants(roots: BTreeSet<u32>) -> BTreeSet<u32> {
    let parents = parents();
    let mut found = roots;
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| !found.contains(pid) && found.contains(parent))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The processes whose network namespace is the one of this file.
pub fn in_netns(path: &Path) -> Result<BTreeSet<u32>> {
    let wanted = fs::metadata(path).with_context(|| format!("stat network namespace {}", path.display()))?;
    Ok(parents()
        .into_keys()
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        })
        .collect())
}

/// Kills every process of a network namespace, with all descendants (containers have namespaces of their own, but
/// descend from shims that are in their node's), and waits until they are gone. Our own process is never among them.
pub fn end_all_in_netns(path: &Path) -> Result<()> {
    let own = std::process::id();
    let mut ended = BTreeSet::new();
    in_the_end(Duration::from_secs(10), &format!("the processes in {} to end", path.display()), || {
        let mut found = with_descendants(in_netns(path)?);
        found.remove(&own);
        found.iter().try_for_each(|pid| signal(*pid, Signal::SIGKILL))?;
        ended.append(&mut found);
        ended.retain(|pid| is_alive(*pid));
        if ended.is_empty() { Ok(()) } else { Err(anyhow!("{ended:?} live")) }
    })
}

/// State and parent, from `/proc/<pid>/stat`. The name in it may hold blanks and brackets: what counts comes after
/// the last closing bracket.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
