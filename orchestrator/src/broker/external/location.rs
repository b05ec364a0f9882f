//! Where a broker is: `mqtts://[USER@]HOST[:PORT]`, or `mqtt://` without encryption.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

const PORT: u16 = 1883;
const PORT_TLS: u16 = 8883;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_encrypted: bool,
    pub(super) user: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected mqtts:// or mqtt://[USER@]HOST[:PORT]: {0}")]
pub struct InvalidLocation(&'static str);

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let (is_encrypted, rest) = match text.split_once("://") {
            Some(("mqtts", rest)) => (true, rest),
            Some(("mqtt", rest)) => (false, rest),
            _ => return Err(InvalidLocation("it begins with something else")),
        };
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(InvalidLocation("a password goes into a file: --broker-password-file"));
        }
        if user.is_some_and(|user| user.is_empty() || user.contains(char::is_control)) {
            return Err(InvalidLocation("the user is none"));
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(InvalidLocation("a bracket is missing"))?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        if host.is_empty()
            || host.contains(['/', '?', '#', '[', ']', '@'])
            || host.contains(char::is_whitespace)
        {
            return Err(InvalidLocation("the host is none"));
        }
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0),
            None if port.is_empty() => Some(if is_encrypted { PORT_TLS } else { PORT }),
            None => None,
        };
        let port = port.ok_or(InvalidLocation("the port is none"))?;
        Ok(Self { host: host.to_owned(), port, is_encrypted, user: user.map(str::to_owned) })
    }
}

impl Location {
    /// Whether others can read what is said on the way.
    pub(super) fn is_exposed(&self) -> bool {
        let is_here = self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        !self.is_encrypted && !is_here
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_encrypted { "mqtts://" } else { "mqtt://" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Location;

    fn read(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn host_port_and_user_are_read() {
        for (text, shown) in [
            ("mqtt://192.0.2.1", "mqtt://192.0.2.1:1883"),
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("mqtts://lab@broker.example:1", "mqtts://lab@broker.example:1"),
            ("mqtt://a@b@[2001:db8::1]:2", "mqtt://a@b@[2001:db8::1]:2"),
            ("mqtts://[::1]", "mqtts://[::1]:8883"),
        ] {
            assert_eq!(read(text).to_string(), shown);
            assert_eq!(read(shown), read(text));
        }
        assert_eq!(read("mqtts://[::1]").host, "::1");
    }

    #[test]
    fn it_is_known_what_others_could_read() {
        for (text, is_exposed) in [
            ("mqtt://127.0.0.1", false),
            ("mqtt://[::1]", false),
            ("mqtt://localhost:1", false),
            ("mqtt://192.0.2.1", true),
            ("mqtts://192.0.2.1", false),
        ] {
            assert_eq!(read(text).is_exposed(), is_exposed, "{text}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused_and_a_password_never_shown() {
        for text in [
            "tcp://a",
            "a:1883",
            "mqtt://",
            "mqtt://:1",
            "mqtt://a:0",
            "mqtt://a:x",
            "mqtt://a/topic",
            "mqtt://@a",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://::1",
            "mqtt://a b",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text} was taken");
        }
        let error = "mqtt://lab:secret@a".parse::<Location>().unwrap_err().to_string();
        assert!(error.contains("--broker-password-file") && !error.contains("secret"), "{error}");
    }
}
