//! Host ports: `hostPort[:containerPort][/tcp|/udp]`, several separated by `;`. Pure.

use std::fmt;
use std::str::FromStr;

use protocol::port::TUNNEL;
use serde::{Deserialize, Serialize};

/// One port of the node that leads into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    pub transport: Transport,
    pub host: u16,
    pub container: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// Why a text is no list of mappings.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InvalidMappings {
    #[error("expected hostPort[:containerPort][/tcp|/udp], several separated by ';', got {0:?}")]
    Form(String),
    #[error("{0} is asked for twice")]
    Twice(HostPort),
    #[error("{0} is where the overlay's tunnel arrives")]
    Tunnel(HostPort),
}

/// A port of the node, as it can be taken only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub transport: Transport,
    pub port: u16,
}

impl PortMapping {
    #[must_use]
    pub fn host_port(self) -> HostPort {
        HostPort { transport: self.transport, port: self.host }
    }
}

/// Reads a whole `portMappings` text. Blank is "none".
///
/// # Errors
/// When a part has another form, a port is 0, one port of the node is asked for twice, or it is the tunnel's.
pub fn parse(text: &str) -> Result<Vec<PortMapping>, InvalidMappings> {
    let mut mappings: Vec<PortMapping> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let mapping: PortMapping = part.parse()?;
        if mappings.iter().any(|other| other.host_port() == mapping.host_port()) {
            return Err(InvalidMappings::Twice(mapping.host_port()));
        }
        if mapping.host_port() == (HostPort { transport: Transport::Udp, port: TUNNEL }) {
            return Err(InvalidMappings::Tunnel(mapping.host_port()));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

impl FromStr for PortMapping {
    type Err = InvalidMappings;

    fn from_str(text: &str) -> Result<Self, InvalidMappings> {
        let invalid = || InvalidMappings::Form(text.chars().take(64).collect());
        let (ports, transport) = match text.split_once('/') {
            None => (text, Transport::Tcp),
            Some((ports, "tcp")) => (ports, Transport::Tcp),
            Some((ports, "udp")) => (ports, Transport::Udp),
            Some(_) => return Err(invalid()),
        };
        let (host, container) = ports.split_once(':').unwrap_or((ports, ports));
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0).ok_or_else(invalid);
        Ok(Self { transport, host: port(host)?, container: port(container)? })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}/{}", self.port, self.transport)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.container, self.transport)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{InvalidMappings, PortMapping, Transport, parse};

    #[test]
    fn all_forms_of_a_mapping_are_read() {
        let tcp = |host, container| PortMapping { transport: Transport::Tcp, host, container };
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("8080").unwrap(), [tcp(8080, 8080)]);
        assert_eq!(parse("8080:80").unwrap(), [tcp(8080, 80)]);
        assert_eq!(
            parse("8080:80/tcp; 53:5353/udp;").unwrap(),
            [tcp(8080, 80), PortMapping { transport: Transport::Udp, host: 53, container: 5353 }]
        );
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for text in ["80:", ":80", "0:80", "80:0", "65536", "80/sctp", "80:80:80", "web"] {
            assert!(matches!(parse(text), Err(InvalidMappings::Form(_))), "{text} was taken");
        }
        assert!(matches!(parse("80:1;80:2"), Err(InvalidMappings::Twice(_))));
        assert!(parse("80:1/tcp;80:2/udp").is_ok());
        assert!(matches!(parse("50103:1/udp"), Err(InvalidMappings::Tunnel(_))));
        assert!(parse("50103:1/tcp").is_ok());
    }

    proptest! {
        #[test]
        fn a_mapping_is_read_as_it_is_written(host in 1u16.., container in 1u16.., udp in any::<bool>()) {
            let transport = if udp { Transport::Udp } else { Transport::Tcp };
            let mapping = PortMapping { transport, host, container };
            prop_assert_eq!(mapping.to_string().parse::<PortMapping>().unwrap(), mapping);
        }
    }
}
