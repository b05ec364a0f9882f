//! What exists on this machine that a lab could leave behind. Two of these, taken before and after, prove that
//! nothing was.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cgroup::{self, HYPHA};
use crate::lab;
use crate::netns::LAB_VARIABLE;
use crate::process;

/// One thing that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    pub kind: &'static str,
    pub name: String,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Everything of the kinds of [`KINDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(BTreeSet<Trace>);

/// The kinds that are looked at, for people.
pub const KINDS: &str = "network namespaces, links, BPF pins, mounts, cgroups, processes, folders";

impl Footprint {
    pub fn take() -> Result<Self> {
        let mut traces = BTreeSet::new();
        let mut add = |kind, names: Vec<String>| {
            traces.extend(names.into_iter().map(|name| Trace { kind, name }));
        };
        add("network namespace", entries(Path::new("/run/netns")));
        add("link", links()?);
        add("pin", tree(Path::new("/sys/fs/bpf")));
        add("mount", mounts()?);
        add("cgroup", cgroup::below(HYPHA).iter().map(|path| path.display().to_string()).collect());
        add("process", processes());
        add("folder", lab::folders().iter().map(|path| path.display().to_string()).collect());
        add("shim socket", entries(Path::new("/run/containerd/s")));
        Ok(Self(traces))
    }

    /// What is here and was not there `before`. What another living process has made and marked as its own by its
    /// number (a test run beside this one) does not count.
    #[must_use]
    pub fn since<'a>(&'a self, before: &'a Self) -> Vec<&'a Trace> {
        self.0.difference(&before.0).filter(|trace| !is_of_another(&trace.name)).collect()
    }
}

/// `…/hypha-net-4711-2-…` of a process 4711 that lives and is not us: the first number is the process, what follows
/// it may be any.
fn is_of_another(name: &str) -> bool {
    let Some((_, marked)) = name.split_once("hypha-") else { return false };
    let mut words = marked.split(|separator: char| !separator.is_ascii_alphanumeric());
    let maker: Option<u32> = words.find_map(|word| word.parse().ok());
    maker.is_some_and(|pid| pid != std::process::id() && process::is_alive(pid))
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().display().to_string()).collect()
}

fn tree(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            let below = if path.is_dir() { tree(&path) } else { Vec::new() };
            std::iter::once(path.display().to_string()).chain(below)
        })
        .collect()
}

fn links() -> Result<Vec<String>> {
    let listing = process::output(Command::new("ip").args(["-o", "link"]))?;
    Ok(listing.lines().filter_map(|line| Some(line.split(": ").nth(1)?.to_owned())).collect())
}

fn mounts() -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    Ok(mounts.lines().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect())
}

/// Containers' processes, and those that were started in a lab's namespaces.
fn processes() -> Vec<String> {
    let marker = format!("{LAB_VARIABLE}={}", std::process::id());
    let in_container = format!("/{HYPHA}/");
    process::parents()
        .into_keys()
        .filter(|pid| *pid != std::process::id() && process::is_alive(*pid))
        .filter(|pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let marked =
                read("environ").split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes());
            marked || String::from_utf8_lossy(&read("cgroup")).contains(&in_container)
        })
        .filter_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some(format!("{} ({pid})", name.trim_end()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::is_of_another;

    #[test]
    fn only_the_first_number_says_who_made_it() {
        let (us, alive) = (std::process::id(), std::os::unix::process::parent_id());
        for (name, expected) in [
            (format!("/run/netns/hypha-{us}-{alive}-seen"), false),
            (format!("/run/netns/hypha-{alive}-{us}-seen"), true),
            (format!("/sys/fs/bpf/hypha-net-{alive}-0"), true),
            ("/run/netns/hypha-4194304-1-seen".to_owned(), false),
            (format!("/run/netns/other-{alive}"), false),
        ] {
            assert_eq!(is_of_another(&name), expected, "{name}");
        }
    }
}
