//! Reading what Go and Python write: `null` for an empty list, a number in a string.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default. Goes with `#[serde(default)]`, which covers the missing key.
///
/// # Errors
/// Whatever the value's own type refuses.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a port number that is written as an integer by some of Oakestra's parts and as a string by others.
/// `null` and the empty string are 0.
///
/// # Errors
/// A number outside 0..=65535, or text that is no number.
pub fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Text(String),
    }
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(0),
        Some(Written::Number(port)) => Ok(port),
        Some(Written::Text(text)) if text.is_empty() => Ok(0),
        Some(Written::Text(text)) => text.parse().map_err(|_not_a_number| {
            serde::de::Error::custom(format!("expected a port number, got {text:?}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Probe {
        #[serde(default, deserialize_with = "super::null_as_default")]
        list: Vec<u8>,
        #[serde(default, deserialize_with = "super::port")]
        port: u16,
    }

    fn read(text: &str) -> Probe {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn null_and_missing_are_the_default() {
        assert!(read(r#"{"list":null,"port":null}"#).list.is_empty());
        assert_eq!(read("{}").port, 0);
    }

    #[test]
    fn a_port_is_read_from_a_number_and_from_text() {
        assert_eq!(read(r#"{"port":50103}"#).port, 50103);
        assert_eq!(read(r#"{"port":"50103"}"#).port, 50103);
        assert!(serde_json::from_str::<Probe>(r#"{"port":"tunnel"}"#).is_err());
        assert!(serde_json::from_str::<Probe>(r#"{"port":70000}"#).is_err());
    }
}
