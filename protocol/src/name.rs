//! Names of services and instances: `application.namespace.service.namespace`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest part of a name, and the characters in it: letters and digits of ASCII.
pub const PART_MAX: usize = 30;

/// Whether `part` may be a part of a name: 1 to 30 letters and digits.
#[must_use]
pub fn is_valid_part(part: &str) -> bool {
    !part.is_empty() && part.len() <= PART_MAX && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The full name of a service (Oakestra's `job_name`): application, its namespace, service, its namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

/// Why a text is no [`ServiceName`].
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("expected app.namespace.service.namespace, each of 1 to 30 letters or digits, got {0:?}")]
pub struct InvalidServiceName(String);

impl ServiceName {
    /// # Errors
    /// When a part is empty, too long, or has other characters than letters and digits.
    pub fn new(app: &str, app_ns: &str, service: &str, service_ns: &str) -> Result<Self, InvalidServiceName> {
        format!("{app}.{app_ns}.{service}.{service_ns}").parse()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Application, its namespace, service, its namespace.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, InvalidServiceName> {
        let valid = text.split('.').count() == 4 && text.split('.').all(is_valid_part);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidServiceName(text.chars().take(128).collect()))
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceName({})", self.0)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One instance of a service. Numbers are never used twice within a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceName {
    pub service: ServiceName,
    pub number: u32,
}

/// `app.ns.service.ns.instance.3`: also the container's id.
impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.instance.{}", self.service, self.number)
    }
}

/// Why a text is no [`InstanceName`].
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("expected app.namespace.service.namespace.instance.N, got {0:?}")]
pub struct InvalidInstanceName(String);

impl FromStr for InstanceName {
    type Err = InvalidInstanceName;

    fn from_str(text: &str) -> Result<Self, InvalidInstanceName> {
        let invalid = || InvalidInstanceName(text.chars().take(160).collect());
        let (service, number) = text.split_once(".instance.").ok_or_else(invalid)?;
        Ok(Self {
            service: service.parse().map_err(|_not_a_service| invalid())?,
            number: number.parse().map_err(|_not_a_number| invalid())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{InstanceName, ServiceName};

    #[test]
    fn a_name_has_four_parts_of_letters_and_digits() {
        assert!("smp.bed.srv.bed".parse::<ServiceName>().is_ok());
        for text in
            ["", "a.b.c", "a.b.c.d.e", "a.b..d", "a.b.c.d-e", "a.b.c.ü", &format!("a.b.c.{}", "x".repeat(31))]
        {
            assert!(text.parse::<ServiceName>().is_err(), "{text:?} was taken for a service name");
        }
    }

    #[test]
    fn an_instance_name_survives_a_round_trip() {
        let name = InstanceName { service: "smp.bed.srv.bed".parse().unwrap(), number: 7 };
        assert_eq!(name.to_string(), "smp.bed.srv.bed.instance.7");
        assert_eq!(name.to_string().parse::<InstanceName>().unwrap(), name);
    }
}
