//! A real Mosquitto of a test's own, on loopback, with the rules that `orchestrator broker-acl` prints.
//!
//! Workers have a listener where anybody is let in, and the cluster has one of its own, with a password or with TLS and a
//! certificate.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator::broker::external::BrokerArgs;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// The cluster's, at the broker.
pub(crate) const USER: &str = "orchestrator";
pub(crate) const PASSWORD: &str = "open sesame";
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Killed when it goes out of scope.
pub(crate) struct Mosquitto {
    child: Child,
    folder: TempDir,
    /// Where workers find it.
    pub(crate) workers: u16,
    pub(crate) cluster: u16,
}

/// How the cluster is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    ByPassword,
    ByCertificate,
}

impl Mosquitto {
    /// Starts it and waits until it listens. `acl` are more flags of `orchestrator broker-acl` for the workers' rules.
    pub(crate) fn start(known: Known, acl: &[&str]) -> Self {
        Self::start_with(known, acl, "message_size_limit 262144")
    }

    /// As [`Self::start`], with another setting in place of the limit to messages.
    pub(crate) fn start_with(known: Known, acl: &[&str], setting: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        print_acl(&[&["--for", "workers", "--output", &at("workers.acl")], acl].concat());
        print_acl(&["--for", "cluster", "--user", USER, "--output", &at("cluster.acl")]);
        let [workers, cluster] = free_ports();
        let of_cluster = match known {
            Known::ByPassword => {
                let made = Command::new("mosquitto_passwd")
                    .args(["-b", "-c", &at("passwords"), USER, PASSWORD])
                    .status()
                    .expect("run mosquitto_passwd (cargo xtask setup installs it)");
                assert!(made.success());
                fs::write(at("password"), format!("{PASSWORD}\n")).expect("write the password");
                format!("allow_anonymous false\npassword_file {}\n", at("passwords"))
            }
            Known::ByCertificate => {
                certify(folder.path());
                format!(
                    "allow_anonymous false\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
                     use_identity_as_username true\n",
                    at("ca.pem"),
                    at("server.pem"),
                    at("server.key")
                )
            }
        };
        let config = format!(
            "user root\nper_listener_settings true\nset_tcp_nodelay true\n{setting}\n\
             log_dest file {}\n\
             listener {workers} 127.0.0.1\nallow_anonymous true\nacl_file {}\n\
             listener {cluster} 127.0.0.1\n{of_cluster}acl_file {}\n",
            at("mosquitto.log"),
            at("workers.acl"),
            at("cluster.acl")
        );
        fs::write(at("mosquitto.conf"), config).expect("write the settings");
        let child = run(folder.path());
        let mut server = Self { child, folder, workers, cluster };
        server.wait();
        server
    }

    /// The flags by which a cluster is let in.
    pub(crate) fn flags(&self, known: Known) -> BrokerArgs {
        let at = |name: &str| self.folder.path().join(name);
        let scheme = if known == Known::ByPassword { "mqtt" } else { "mqtts" };
        let broker = format!("{scheme}://{USER}@127.0.0.1:{}", self.cluster).parse().expect("a location");
        let none = BrokerArgs { broker: Some(broker), ..BrokerArgs::default() };
        match known {
            Known::ByPassword => BrokerArgs { broker_password_file: Some(at("password")), ..none },
            Known::ByCertificate => BrokerArgs {
                broker_ca: Some(at("ca.pem")),
                broker_cert: Some(at("client.pem")),
                broker_key: Some(at("client.key")),
                ..none
            },
        }
    }

    /// A file of its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("mosquitto.log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill mosquitto");
        self.child.wait().expect("wait for mosquitto");
    }

    pub(crate) fn start_again(&mut self) {
        self.child = run(self.folder.path());
        self.wait();
    }

    fn wait(&mut self) {
        let start = Instant::now();
        for port in [self.workers, self.cluster] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                let ended = self.child.try_wait().expect("look at mosquitto");
                assert!(ended.is_none(), "mosquitto ended with {ended:?}: {}", self.log());
                assert!(start.elapsed() < START_TIMEOUT, "mosquitto does not listen: {}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn run(folder: &Path) -> Child {
    Command::new("/usr/sbin/mosquitto")
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start mosquitto (cargo xtask setup installs it)")
}

fn print_acl(flags: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .arg("broker-acl")
        .args(flags)
        .output()
        .expect("run orchestrator broker-acl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and what it has signed: the broker's certificate and the cluster's. And a CA that has signed nothing.
fn certify(folder: &Path) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("write a certificate");
    let authority = |name: &str| {
        let key = KeyPair::generate().expect("make a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, key).expect("a certificate authority")
    };
    let (ca, stranger) = (authority("the test's"), authority("somebody"));
    write("ca.pem", ca.pem());
    write("stranger.pem", stranger.pem());
    for (name, common_name) in [("server", "127.0.0.1"), ("client", USER)] {
        let key = KeyPair::generate().expect("make a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &ca).expect("sign a certificate");
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// Two at a time, so that they are not the same.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}
