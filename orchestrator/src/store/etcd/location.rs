//! Where an etcd is: `etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][/PREFIX]`.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// `http://HOST:PORT`.
    pub(super) endpoints: Vec<String>,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    /// Of all keys, without slashes around it.
    pub(super) prefix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][/PREFIX]: {0}")]
pub struct InvalidLocation(&'static str);

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let rest = text.strip_prefix("etcd://").ok_or(InvalidLocation("it begins with something else"))?;
        let (place, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match place.rsplit_once('@') {
            Some((user, hosts)) => {
                let (name, password) =
                    user.split_once(':').ok_or(InvalidLocation("there is a user without a password"))?;
                (Some((name.to_owned(), password.to_owned())), hosts)
            }
            None => (None, place),
        };
        let endpoint = |host: &str| {
            let (name, port) = host.rsplit_once(':').ok_or(InvalidLocation("a host has no port"))?;
            if name.is_empty() || port.parse::<u16>().is_err() || host.contains(['?', '#', ' ']) {
                return Err(InvalidLocation("a host or its port is none"));
            }
            Ok(format!("http://{host}"))
        };
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<_, _>>()?;
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidLocation("the prefix is not of plain letters"));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty());
        Ok(Self { endpoints, user, prefix })
    }
}

/// Without the password, here and in [`fmt::Debug`], so that it never gets into a message.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.endpoints.iter().map(|endpoint| endpoint.trim_start_matches("http://"));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        write!(f, "etcd://{hosts}")?;
        self.prefix.as_ref().map_or(Ok(()), |prefix| write!(f, "/{prefix}"))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidLocation, Location};

    fn read(text: &str) -> Result<Location, InvalidLocation> {
        text.parse()
    }

    #[test]
    fn one_or_several_hosts_a_user_and_a_prefix_are_read() {
        let one = read("etcd://127.0.0.1:2379").unwrap();
        assert_eq!(
            one,
            Location { endpoints: vec!["http://127.0.0.1:2379".into()], user: None, prefix: None }
        );
        let several = read("etcd://root:p@ss:word@a:1,[::1]:2/deep/er/").unwrap();
        assert_eq!(several.endpoints, ["http://a:1", "http://[::1]:2"]);
        assert_eq!(several.user, Some(("root".into(), "p@ss:word".into())));
        assert_eq!(several.prefix.as_deref(), Some("deep/er"));
        assert_eq!(format!("{several} {several:?}"), "etcd://a:1,[::1]:2/deep/er etcd://a:1,[::1]:2/deep/er");
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "http://a:1",
            "etcd://",
            "etcd://a",
            "etcd://a:1,b",
            "etcd://a:x",
            "etcd://root@a:1",
            "etcd://a:1/ü",
        ] {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }
}
