//! Where the root is: what people type, made into one form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use protocol::port;

/// The address of a root's API, as `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAddress {
    #[error("{0:?} is no address of a root: expected HOST, HOST:PORT or http://HOST:PORT")]
    Malformed(String),
    #[error("https is not spoken yet, neither here nor by the root: use http:// inside a network you trust")]
    Https,
}

impl Address {
    /// Whether what is sent there never leaves this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// A missing port is the root's usual one, with and without a scheme.
impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let malformed = || InvalidAddress::Malformed(text.to_owned());
        let rest = match text.trim().split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(InvalidAddress::Https),
            Some(_) => return Err(malformed()),
            None => text.trim(),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if rest.starts_with('[') {
            let end = rest.find(']').ok_or_else(malformed)?;
            let (host, port) = rest.split_at(end + 1);
            host[1..end].parse::<std::net::Ipv6Addr>().map_err(|_not_an_address| malformed())?;
            (host.to_owned(), port.strip_prefix(':'))
        } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
            (format!("[{rest}]"), None)
        } else {
            let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
            let valid = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if host.is_empty() || !host.chars().all(valid) {
                return Err(malformed());
            }
            (host.to_ascii_lowercase(), port)
        };
        let port = match port {
            None if rest.ends_with(']') || !rest.starts_with('[') => port::ROOT_API,
            None => return Err(malformed()),
            Some(port) => port.parse().map_err(|_not_a_port| malformed())?,
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, InvalidAddress};

    fn read(text: &str) -> Result<String, InvalidAddress> {
        text.parse().map(|address: Address| address.to_string())
    }

    #[test]
    fn what_people_type_becomes_one_form() {
        for (typed, meant) in [
            ("192.168.1.20", "http://192.168.1.20:10000"),
            ("root.lan:8080", "http://root.lan:8080"),
            ("http://Root.LAN/", "http://root.lan:10000"),
            ("http://root.lan:80", "http://root.lan:80"),
            ("[2001:db8::1]:7", "http://[2001:db8::1]:7"),
            ("http://[::1]", "http://[::1]:10000"),
            ("::1", "http://[::1]:10000"),
        ] {
            assert_eq!(read(typed).as_deref(), Ok(meant));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "http://",
            "a b",
            "ftp://x",
            "x:port",
            "x:70000",
            "x/y",
            "[::1",
            "[::1]x",
            "user@host",
            "[zz]",
        ] {
            assert!(read(text).is_err(), "{text:?} was taken for an address");
        }
        assert_eq!(read("https://root"), Err(InvalidAddress::Https));
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        let loopback = |text: &str| text.parse::<Address>().unwrap().is_loopback();
        assert!(loopback("localhost") && loopback("127.0.0.1:1") && loopback("::1"));
        assert!(!loopback("192.0.2.1") && !loopback("localhost.example.org"));
    }
}
