//! Where an etcd is: `etcds://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][/PREFIX]`, or `etcd://` without encryption.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// `http://HOST:PORT`, or with `https`.
    pub(super) endpoints: Vec<String>,
    /// Nothing: it is not encrypted.
    pub(super) tls: Option<Tls>,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    /// Of all keys, without slashes around it.
    pub(super) prefix: Option<String>,
    /// Address under which others with the same store reach this daemon, if it was told.
    own: Option<IpAddr>,
}

/// Whom to trust, and who one is: PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Nothing: whom this system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected etcds:// or etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][/PREFIX]: {0}")]
pub struct InvalidLocation(&'static str);

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let (scheme, rest) =
            text.split_once("://").ok_or(InvalidLocation("it begins with something else"))?;
        let (scheme, tls) = match scheme {
            "etcds" => ("https", Some(Tls::default())),
            "etcd" => ("http", None),
            _ => return Err(InvalidLocation("it begins with something else")),
        };
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
            // Or else it is a user and a password, and @ was mistyped: messages are to hold none of it.
            let is_name = name.starts_with('[') || !name.contains(':');
            if !is_name || name.is_empty() || port.parse::<u16>().is_err() || host.contains(['?', '#', ' ']) {
                return Err(InvalidLocation("a host or its port is none"));
            }
            Ok(format!("{scheme}://{host}"))
        };
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<_, _>>()?;
        // With @ in it, it is the rest of a password that has a slash.
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@') {
            return Err(InvalidLocation("the prefix is not of plain letters"));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty());
        Ok(Self { endpoints, tls, user, prefix, own: None })
    }
}

impl Location {
    pub(super) fn seen_at(self, own: Option<IpAddr>) -> Self {
        Self { own, ..self }
    }

    /// Address under which others with the same store reach this daemon: as it was told, or the one that it has towards etcd.
    /// Nothing while there is no way to there.
    pub async fn own_address(&self) -> Option<IpAddr> {
        if self.own.is_some() {
            return self.own;
        }
        let (_, host) = self.endpoints.first()?.split_once("://")?;
        for etcd in tokio::net::lookup_host(host).await.ok()? {
            let any = if etcd.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
            // Nothing is sent: the kernel only looks for a way.
            let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
            if socket.connect(etcd).await.is_ok() {
                return socket.local_addr().ok().map(|own| own.ip());
            }
        }
        None
    }

    /// # Errors
    /// There are files, and nothing is encrypted.
    pub(super) fn with(self, files: Tls) -> Result<Self, InvalidLocation> {
        match self.tls {
            Some(_) => Ok(Self { tls: Some(files), ..self }),
            None if files == Tls::default() => Ok(self),
            None => Err(InvalidLocation("files of certificates are for etcds://")),
        }
    }

    /// Whether others can read what is said on the way.
    pub(super) fn is_exposed(&self) -> bool {
        self.tls.is_none() && !self.hosts().all(is_loopback)
    }

    /// `HOST:PORT`.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host))
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Without the password, here and in [`fmt::Debug`], so that it never gets into a message.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        write!(f, "{scheme}://{}", self.hosts().collect::<Vec<_>>().join(","))?;
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
    use super::{InvalidLocation, Location, Tls};

    fn read(text: &str) -> Result<Location, InvalidLocation> {
        text.parse()
    }

    #[test]
    fn one_or_several_hosts_a_user_and_a_prefix_are_read() {
        let one = read("etcd://127.0.0.1:2379").unwrap();
        assert_eq!(
            one,
            Location {
                endpoints: vec!["http://127.0.0.1:2379".into()],
                tls: None,
                user: None,
                prefix: None,
                own: None
            }
        );
        let several = read("etcd://root:p@ss:word@a:1,[::1]:2/deep/er/").unwrap();
        assert_eq!(several.endpoints, ["http://a:1", "http://[::1]:2"]);
        assert_eq!(several.user, Some(("root".into(), "p@ss:word".into())));
        assert_eq!(several.prefix.as_deref(), Some("deep/er"));
        let hidden = read("etcds://a:1").unwrap();
        assert_eq!(
            (hidden.endpoints[0].as_str(), hidden.to_string().as_str()),
            ("https://a:1", "etcds://a:1")
        );
        assert_eq!(format!("{several} {several:?}"), "etcd://a:1,[::1]:2/deep/er etcd://a:1,[::1]:2/deep/er");
    }

    #[test]
    fn it_is_known_what_others_could_read() {
        for (text, is_exposed) in [
            ("etcd://127.0.0.1:1,[::1]:2,localhost:3", false),
            ("etcd://127.0.0.1:1,192.0.2.1:2", true),
            ("etcds://192.0.2.1:2", false),
        ] {
            assert_eq!(read(text).unwrap().is_exposed(), is_exposed, "{text}");
        }
        let ca = Tls { ca: Some("ca.pem".into()), identity: None };
        assert!(read("etcd://a:1").unwrap().with(ca.clone()).is_err());
        assert_eq!(read("etcds://a:1").unwrap().with(ca.clone()).unwrap().tls, Some(ca));
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
            "etcd://root:1/2@a:1",
        ] {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }
}
