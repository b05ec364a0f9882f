//! A real orchestrator process of a test's own, on loopback and on ports that nobody else has.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Killed when it goes out of scope.
pub(crate) struct Daemon {
    child: Child,
    /// The line in which it says so: `api=127.0.0.1:4711` and the others.
    fields: HashMap<String, String>,
}

const START_TIMEOUT: Duration = Duration::from_secs(30);

impl Daemon {
    /// Starts `orchestrator` and waits until it says on which addresses it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`Self::start`], with this in its environment.
    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(arguments)
            .env("RUST_LOG", "info")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start orchestrator");
        let log = child.stderr.take().expect("a pipe");
        let (tell, told) = mpsc::channel();
        let name = arguments[0].to_owned();
        std::thread::spawn(move || read_log(&name, log, &tell));
        // From here on the process ends with the test, however that ends.
        let mut daemon = Self { child, fields: HashMap::new() };
        daemon.fields = told.recv_timeout(START_TIMEOUT).expect("an orchestrator that listens");
        daemon
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.fields))
    }

    /// The port in a field that is an address.
    pub(crate) fn port(&self, name: &str) -> &str {
        self.field(name).rsplit(':').next().unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().expect("stop an orchestrator");
        self.child.wait().expect("wait for an orchestrator");
    }
}

/// Reads to the end, so that the process never waits for a reader.
#[expect(clippy::print_stderr, reason = "the log belongs to the output of the test")]
fn read_log(name: &str, log: ChildStderr, tell: &mpsc::Sender<HashMap<String, String>>) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        eprintln!("{name}: {line}");
        let fields = line.split_whitespace().filter_map(|word| word.split_once('='));
        let fields: HashMap<_, _> = fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        if fields.contains_key("api") {
            // Nobody listens any more when the test has given up.
            drop(tell.send(fields));
        }
    }
}
