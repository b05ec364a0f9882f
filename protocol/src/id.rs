//! Identifiers of services, applications, clusters and nodes: 24 hexadecimal digits.
//!
//! Clients treat them as opaque text, but Oakestra's own parts refuse anything that is not a Mongo ObjectId.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An identifier of 12 bytes, written as 24 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 12]);

/// Why a text is no [`Id`].
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("expected 24 hexadecimal digits, got {0:?}")]
pub struct InvalidId(String);

impl Id {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(64).collect());
        if text.len() != 24 || !text.is_ascii() {
            return Err(invalid());
        }
        let mut bytes = [0; 12];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let high = char::from(digits[0]).to_digit(16).ok_or_else(invalid)?;
            let low = char::from(digits[1]).to_digit(16).ok_or_else(invalid)?;
            *byte = u8::try_from(high * 16 + low).map_err(|_out_of_range| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the plain text and Mongo's extended form `{"$oid": "…"}`.
impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Plain(String),
            Extended {
                #[serde(rename = "$oid")]
                oid: String,
            },
        }
        let (Written::Plain(text) | Written::Extended { oid: text }) = Written::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An [`Id`] that is written in Mongo's extended form, where clients read it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ExtendedId {
    #[serde(rename = "$oid")]
    pub oid: Id,
}

impl From<Id> for ExtendedId {
    fn from(oid: Id) -> Self {
        Self { oid }
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtendedId, Id};

    const TEXT: &str = "6b033dd4d683569b0801fa18";

    #[test]
    fn an_id_is_read_and_written_as_text() {
        let id: Id = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{TEXT}\""));
    }

    #[test]
    fn mongos_extended_form_is_read_and_written() {
        let id: Id = serde_json::from_str(&format!(r#"{{"$oid":"{TEXT}"}}"#)).unwrap();
        assert_eq!(serde_json::to_string(&ExtendedId::from(id)).unwrap(), format!(r#"{{"$oid":"{TEXT}"}}"#));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "6b033dd4", "6b033dd4d683569b0801fa1z", "6b033dd4d683569b0801fa1800", "ääääääääääää"]
        {
            assert!(text.parse::<Id>().is_err(), "{text:?} was taken for an id");
        }
    }
}
