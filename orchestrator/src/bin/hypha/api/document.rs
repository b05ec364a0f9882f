//! Documents of the root, and the two ways in which roots encode them.

use protocol::cluster::{UntoldWorkers, Worker};
use protocol::id::Id;
use protocol::lenient::null_as_default;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A document twice: read, and as it came. `-o json` gives the latter, so that no key gets lost.
#[derive(Debug, Clone)]
pub(crate) struct Fetched<T> {
    pub(crate) document: T,
    pub(crate) raw: Value,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Fetched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        let document = T::deserialize(&raw).map_err(D::Error::custom)?;
        Ok(Self { document, raw })
    }
}

/// What the root knows of workers.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Told {
    pub(crate) workers: Vec<Fetched<Worker>>,
    pub(crate) untold: Vec<UntoldWorkers>,
}

/// An application as the root shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct App {
    #[serde(rename = "_id")]
    pub(crate) id: Id,
    #[serde(rename = "application_name")]
    pub(crate) name: String,
    #[serde(rename = "application_namespace")]
    pub(crate) namespace: String,
    #[serde(rename = "application_desc", default, deserialize_with = "null_as_default")]
    pub(crate) description: String,
    #[serde(rename = "userId", default, deserialize_with = "null_as_default")]
    pub(crate) owner: String,
}

/// The JSON value of a body. Oakestra's root wraps most of its answers once more: a JSON string that contains JSON.
/// An empty body is `null`. `None` for what is no JSON.
pub(super) fn value(bytes: &[u8]) -> Option<Value> {
    if bytes.trim_ascii().is_empty() {
        return Some(Value::Null);
    }
    match serde_json::from_slice(bytes).ok()? {
        Value::String(text) => Some(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        value => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{App, Fetched, value};

    #[test]
    fn both_encodings_of_a_body_are_read() {
        assert_eq!(value(br#"[{"a":1}]"#), Some(json!([{"a": 1}])));
        assert_eq!(value(br#""[{\"a\":1}]""#), Some(json!([{"a": 1}])));
        assert_eq!(value(br#""ok""#), Some(json!("ok")));
        assert_eq!(value(b" \n"), Some(Value::Null));
        assert_eq!(value(b"<html>"), None);
    }

    #[test]
    fn an_application_of_oakestra_is_read_and_kept_whole() {
        let text = r#"{"_id": {"$oid": "6b033dd4d683569b0801fa17"}, "applicationID": "6b033dd4d683569b0801fa17",
            "application_name": "smp", "application_namespace": "bed", "application_desc": "bed",
            "microservices": ["6b033dd4d683569b0801fa18"], "userId": "Admin"}"#;
        let app: Fetched<App> = serde_json::from_str(text).unwrap();
        assert_eq!(app.document.name, "smp");
        assert_eq!(app.raw["microservices"][0], "6b033dd4d683569b0801fa18");
    }
}
