//! `netcfg.json`: where this node is reached, and where its cluster is. Oakestra's file, read as strictly as a person
//! who edits it by hand needs: every wrong field is named at once.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use protocol::address::can_be_host;
use protocol::port;
use serde_json::{Map, Value};

use crate::datapath::Decapsulation;
use crate::link::Wanted;
use crate::plane::Choice;

/// The file's content, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address under which other nodes reach this one's tunnel. `None` (`0.0.0.0` in the file): the uplink's.
    pub public_address: Option<IpAddr>,
    /// The tunnel's UDP port, as other nodes reach it. This node itself listens on [`port::TUNNEL`], as Oakestra's do;
    /// another number here is that of a port forwarding.
    pub public_port: u16,
    /// Host of the cluster's broker; `None` (`0.0.0.0` in the file): whatever `/register` says.
    pub cluster: Option<String>,
    pub cluster_mqtt_port: u16,
    /// The uplink; `None`: the interface of the default route.
    pub default_interface: Option<String>,
    /// Where the outer headers of arriving packets are taken off.
    pub decapsulation: Decapsulation,
    /// How the other nodes are to wrap packets to this one.
    pub link: Wanted,
    pub debug: bool,
    /// Where packets are forwarded.
    pub datapath: Choice,
    /// Keys that mean nothing to us: most likely typing errors, so the daemon warns of them.
    pub unknown_keys: Vec<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}; write it, or name another with -c")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not JSON: {source}")]
    Syntax { path: PathBuf, source: serde_json::Error },
    #[error(
        "{path}: expected one JSON object with the fields NodePublicAddress, NodePublicPort, ClusterUrl, ClusterMqttPort"
    )]
    NoObject { path: PathBuf },
    #[error("{}", list(path, problems))]
    Fields { path: PathBuf, problems: Vec<Problem> },
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub field: &'static str,
    pub expected: &'static str,
    /// What stands there, as JSON; `None` when the field is missing.
    pub found: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{}: expected {}, got {found}", self.field, self.expected),
            None => write!(f, "{}: missing, expected {}", self.field, self.expected),
        }
    }
}

fn list(path: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect::<Vec<_>>().join("\n")
}

const ADDRESS: &str = "an IP address in quotes (\"0.0.0.0\" = the uplink's)";
const PORT: &str = "a port from 1 to 65535 in quotes";
const HOST: &str = "a host name or address in quotes (\"0.0.0.0\" = as the node-engine says)";
const INTERFACE: &str = "the name of a network interface in quotes, 1 to 15 characters";
const PLACE: &str = "\"auto\", \"tc\" or \"xdp\"";
const LINK: &str = "\"auto\", \"bare\" or \"vx\"";
const FLAG: &str = "true or false";
const DATAPATH: &str = "\"auto\", \"ebpf\" or \"userspace\"";
const NO_TLS: &str = "\"\": this build speaks plain MQTT only";

/// Oakestra's later keys that ask for nothing we do: known, so that no warning is given.
const IGNORED: [&str; 1] = ["PublicIPNetworking"];

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// When it cannot be read, is no JSON object, or has fields that are missing or wrong: then all of them.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => {
                Self::check(&fields).map_err(|problems| ConfigError::Fields { path, problems })
            }
            Ok(_) => Err(ConfigError::NoObject { path }),
            Err(source) => Err(ConfigError::Syntax { path, source }),
        }
    }

    /// # Errors
    /// Everything that is wrong, in the order of the fields.
    fn check(fields: &Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { fields, asked: Vec::new(), problems: Vec::new() };
        let public_address = reader.required("NodePublicAddress", ADDRESS, address);
        let public_port = reader.required("NodePublicPort", PORT, port_number);
        let cluster = reader.required("ClusterUrl", HOST, host);
        let cluster_mqtt_port = reader.required("ClusterMqttPort", PORT, port_number);
        let default_interface = reader.optional("DefaultInterface", INTERFACE, interface).flatten();
        let decapsulation = reader.optional("Decapsulation", PLACE, place).unwrap_or_default();
        let link = reader.optional("Link", LINK, link).unwrap_or_default();
        let debug = reader.optional("Debug", FLAG, Value::as_bool).unwrap_or(false);
        let datapath = reader.optional("Datapath", DATAPATH, datapath).unwrap_or_default();
        reader.optional("MqttCert", NO_TLS, empty);
        reader.optional("MqttKey", NO_TLS, empty);
        if !reader.problems.is_empty() {
            return Err(reader.problems);
        }
        let unknown =
            |key: &&String| !reader.asked.contains(&key.as_str()) && !IGNORED.contains(&key.as_str());
        Ok(Self {
            public_address: public_address.flatten(),
            public_port: public_port.unwrap_or(port::TUNNEL),
            cluster: cluster.flatten(),
            cluster_mqtt_port: cluster_mqtt_port.unwrap_or(port::CLUSTER_MQTT),
            default_interface,
            decapsulation,
            link,
            debug,
            datapath,
            unknown_keys: fields.keys().filter(unknown).cloned().collect(),
        })
    }
}

/// Takes fields out of the object and collects what is wrong.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    asked: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn required<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        if !self.fields.contains_key(field) {
            self.asked.push(field);
            self.problems.push(Problem { field, expected, found: None });
            return None;
        }
        self.optional(field, expected, parse)
    }

    fn optional<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(field);
        let value = self.fields.get(field)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.problems.push(Problem { field, expected, found: Some(value.to_string()) });
        }
        parsed
    }
}

/// `Some(None)` is "left to us".
fn address(value: &Value) -> Option<Option<IpAddr>> {
    let address: IpAddr = value.as_str()?.parse().ok()?;
    let address = address.to_canonical();
    if address.is_unspecified() {
        return Some(None);
    }
    (!address.is_loopback() && can_be_host(address)).then_some(Some(address))
}

fn port_number(value: &Value) -> Option<u16> {
    value.as_str()?.parse().ok().filter(|port| *port != 0)
}

fn host(value: &Value) -> Option<Option<String>> {
    let host = value.as_str()?;
    if host.is_empty() || host == "0.0.0.0" {
        return Some(None);
    }
    is_host(host).then(|| Some(host.to_owned()))
}

/// Whether `text` can be the host part of an address: a bare name or address, no scheme, port or path.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=253).contains(&text.len()) && (text.bytes().all(plain) || text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn interface(value: &Value) -> Option<Option<String>> {
    let name = value.as_str()?;
    let valid = name.len() <= 15 && !name.contains(['/', ' ']) && name != "." && name != "..";
    valid.then(|| (!name.is_empty()).then(|| name.to_owned()))
}

fn place(value: &Value) -> Option<Decapsulation> {
    value.as_str()?.parse().ok()
}

fn link(value: &Value) -> Option<Wanted> {
    value.as_str()?.parse().ok()
}

fn datapath(value: &Value) -> Option<Choice> {
    Choice::from_str(value.as_str()?, false).ok()
}

fn empty(value: &Value) -> Option<()> {
    value.as_str()?.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Config, Decapsulation, Problem};

    fn check(value: &Value) -> Result<Config, Vec<Problem>> {
        Config::check(value.as_object().unwrap())
    }

    fn guide() -> Value {
        json!({"NodePublicAddress": "192.0.2.31", "NodePublicPort": "50103", "ClusterUrl": "192.0.2.20", "ClusterMqttPort": "10003"})
    }

    #[test]
    fn the_file_of_the_guide_is_taken() {
        let config = check(&guide()).unwrap();
        assert_eq!(config.public_address, Some("192.0.2.31".parse().unwrap()));
        assert_eq!((config.public_port, config.cluster_mqtt_port), (50103, 10003));
        assert_eq!(config.cluster.as_deref(), Some("192.0.2.20"));
        assert_eq!(config.default_interface, None);
    }

    #[test]
    fn the_file_that_oakestra_ships_leaves_addresses_to_us() {
        let config = check(&json!({
            "NodePublicAddress": "0.0.0.0", "NodePublicPort": "50103", "ClusterUrl": "0.0.0.0", "ClusterMqttPort": "10003",
            "DefaultInterface": "", "Debug": false, "PublicIPNetworking": false, "MqttCert": "", "MqttKey": "",
        }))
        .unwrap();
        assert_eq!((config.public_address, config.cluster, config.default_interface), (None, None, None));
        assert!(config.unknown_keys.is_empty());
    }

    #[test]
    fn the_nodes_address_may_be_of_either_ip_version_but_must_be_reachable() {
        let public = |text: &str| {
            let mut fields = guide();
            fields["NodePublicAddress"] = json!(text);
            check(&fields).map(|config| config.public_address).map_err(|problems| problems[0].field)
        };
        assert_eq!(public("2001:db8::31"), Ok(Some("2001:db8::31".parse().unwrap())));
        assert_eq!(public("::ffff:192.0.2.31"), Ok(Some("192.0.2.31".parse().unwrap())));
        assert_eq!(public("::"), Ok(None));
        for wrong in ["::1", "127.0.0.1", "fe80::1", "ff02::1", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(public(wrong), Err("NodePublicAddress"), "{wrong}");
        }
    }

    #[test]
    fn every_wrong_field_is_reported_at_once() {
        let problems = check(&json!({
            "NodePublicAddress": "here", "NodePublicPort": 50103, "ClusterMqttPort": "0", "DefaultInterface": "a-name-of-seventeen",
            "Decapsulation": "generic", "Debug": "yes", "MqttCert": "/etc/cert.pem",
        }))
        .unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field).collect();
        assert_eq!(
            fields,
            [
                "NodePublicAddress",
                "NodePublicPort",
                "ClusterUrl",
                "ClusterMqttPort",
                "DefaultInterface",
                "Decapsulation",
                "Debug",
                "MqttCert"
            ]
        );
        assert!(problems[1].to_string().contains("got 50103"), "{}", problems[1]);
        assert!(problems[2].to_string().contains("missing"), "{}", problems[2]);
    }

    #[test]
    fn the_place_of_decapsulation_is_left_to_us_unless_it_is_given() {
        assert_eq!(check(&guide()).unwrap().decapsulation, Decapsulation::Auto);
        let mut fields = guide();
        fields["Decapsulation"] = json!("xdp");
        assert_eq!(check(&fields).unwrap().decapsulation, Decapsulation::Xdp);
    }

    #[test]
    fn a_cluster_is_a_bare_host() {
        for wrong in ["http://cluster", "cluster:10003", "cluster/x", "a b"] {
            let mut fields = guide();
            fields["ClusterUrl"] = json!(wrong);
            assert_eq!(check(&fields).unwrap_err()[0].field, "ClusterUrl", "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_key_is_noticed() {
        let mut fields = guide();
        fields["Debugg"] = json!(true);
        assert_eq!(check(&fields).unwrap().unknown_keys, ["Debugg"]);
    }
}
