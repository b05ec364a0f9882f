//! Runs the built `hypha`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A person with an empty home.
pub(crate) struct Person {
    home: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) answer: String,
    pub(crate) talk: String,
    pub(crate) exit: i32,
}

impl Person {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().expect("make a home") }
    }

    pub(crate) fn login_file(&self) -> PathBuf {
        self.home.path().join("config/hypha/login.json")
    }

    /// A file in this person's home.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("write a file");
        path.display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hypha"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("HOME", self.home.path())
            .env("TERM", "dumb");
        for name in ["HYPHA_URL", "HYPHA_TOKEN", "NO_COLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs `hypha` to its end, without a terminal.
    pub(crate) fn hypha(&self, arguments: &[&str]) -> Run {
        self.hypha_with(arguments, "")
    }

    /// The same with something on stdin.
    pub(crate) fn hypha_with(&self, arguments: &[&str], input: &str) -> Run {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start hypha");
        // A program that does not read what it is given may have ended already.
        drop(child.stdin.take().expect("a pipe").write_all(input.as_bytes()));
        child.wait_with_output().expect("wait for hypha").into()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            answer: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            talk: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
            exit: output.status.code().unwrap_or(-1),
        }
    }
}

impl Run {
    /// Gives the answer of a run that has to end with `exit`.
    #[track_caller]
    pub(crate) fn exits(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{self:#?}");
        self
    }

    /// The answer as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.answer).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The error as JSON.
    #[track_caller]
    pub(crate) fn error(&self) -> serde_json::Value {
        let line = self.talk.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.talk.contains(text), "{text:?} is not in {self:#?}");
        self
    }
}
