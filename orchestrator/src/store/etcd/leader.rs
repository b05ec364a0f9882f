//! What the one who leads tells the others.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// For people.
    pub name: String,
    /// Where the others reach each of its ports, in an order that all daemons of the kind have.
    #[serde(default)]
    pub at: Vec<SocketAddr>,
    #[serde(default)]
    pub secret: Secret,
}

impl Leader {
    /// As it stands in etcd. One of an earlier version tells its name only.
    pub(super) fn read(value: &str) -> Self {
        serde_json::from_str(value).unwrap_or_else(|_plain| Self {
            name: value.to_owned(),
            at: Vec::new(),
            secret: Secret::default(),
        })
    }
}

/// By which the one who leads knows connections that are passed on by others of the same store. Another one each time that
/// somebody leads.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::{Leader, Secret};

    #[test]
    fn a_leader_is_read_as_it_was_written_and_one_of_an_earlier_version_has_a_name() {
        let at = vec!["192.0.2.1:10000".parse().unwrap()];
        let leader = Leader { name: "host, process 7".to_owned(), at, secret: Secret::random() };
        assert_eq!(Leader::read(&serde_json::to_string(&leader).unwrap()), leader);
        let earlier = Leader::read("host, process 7");
        assert_eq!((&earlier.name, &earlier.at[..]), (&leader.name, &[][..]));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let leader = Leader { name: "it".to_owned(), at: Vec::new(), secret: Secret::random() };
        assert!(!format!("{leader:?}").contains(&leader.secret.0));
    }
}
