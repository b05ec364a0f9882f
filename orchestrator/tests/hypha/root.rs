//! A root of a test's own.

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::program::Person;

pub(crate) struct Root {
    pub(crate) daemon: Daemon,
    data: TempDir,
    pub(crate) url: String,
}

impl Root {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with this in its environment.
    pub(crate) fn start_with(environment: &[(&str, String)]) -> Self {
        Self::open(tempfile::tempdir().expect("make a data directory"), ["0"; 3], environment)
    }

    /// The same root anew, on the same ports.
    pub(crate) fn restart(self) -> Self {
        let Self { daemon, data, .. } = self;
        let ports = ["api", "grpc", "net"].map(|name| daemon.port(name).to_owned());
        drop(daemon);
        Self::open(data, ports.each_ref().map(String::as_str), &[])
    }

    fn open(data: TempDir, [api, grpc, net]: [&str; 3], environment: &[(&str, String)]) -> Self {
        let folder = data.path().join("root").display().to_string();
        let ports = ["--port", api, "--grpc-port", grpc, "--net-port", net];
        let arguments = [&["root", "--bind", "127.0.0.1", "--data-dir", &folder], &ports[..]].concat();
        let daemon = Daemon::start_with(&arguments, environment);
        let url = format!("http://{}", daemon.field("api"));
        Self { daemon, data, url }
    }

    /// The password that it generated for `Admin`.
    fn password(&self) -> String {
        let file = self.data.path().join("root").join("admin-password");
        std::fs::read_to_string(file).expect("read the generated password").trim().to_owned()
    }

    /// Somebody who is logged in.
    pub(crate) fn admin(&self) -> Person {
        let person = Person::new();
        let arguments = ["login", &self.url, "--password-stdin"];
        person.hypha_with(&arguments, &self.password()).exits(0);
        person
    }
}
