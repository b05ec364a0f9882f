//! Every message that was captured from a running Oakestra is read by our types, and written by them again with the
//! same keys and the same kinds of values: a part of Oakestra could stand at the other end.

use protocol::cluster::{Cluster, ClusterStatus};
use protocol::net::{ServiceDeployed, SubnetRequest, SubnetResult, TableQuery, TableResult, UpdateAvailable};
use protocol::node::{Delete, Deploy, InstanceReport, Node, ResourceReport};
use protocol::service::Service;
use protocol::topic::{NodeTopic, parse_updates_available};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const CAPTURED: &str = include_str!("../../tests/fixtures/oakestra-payloads.txt");

#[test]
fn captured_messages_are_written_as_they_were_read() {
    let messages = messages().unwrap();
    assert!(messages.len() > 20, "{} messages were found", messages.len());
    for (source, captured) in messages {
        let written = match rewritten(&source, &captured) {
            Ok(written) => written,
            Err(error) => panic!("{source}: {error}\n{captured}"),
        };
        if let Err(difference) = contains(&written, &captured) {
            panic!("{source}: {difference}\ncaptured {captured}\nwritten  {written}");
        }
    }
}

/// `(GET path | topic, body)` of each message of the capture.
fn messages() -> serde_json::Result<Vec<(String, Value)>> {
    let mut messages = Vec::new();
    let mut source = String::new();
    for line in CAPTURED.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.strip_prefix("  ") {
            Some(body) => messages.push((source.clone(), serde_json::from_str(body)?)),
            None => source = line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned(),
        }
    }
    Ok(messages)
}

/// Reads a message by the type that belongs to where it was captured, and writes it again.
fn rewritten(source: &str, captured: &Value) -> serde_json::Result<Value> {
    if parse_updates_available(source).is_some() {
        return through::<UpdateAvailable>(captured);
    }
    match NodeTopic::parse(source) {
        Some((_, NodeTopic::Information)) => through::<Node>(captured),
        Some((_, NodeTopic::Job)) => through::<InstanceReport>(captured),
        Some((_, NodeTopic::Resources)) => through::<ResourceReport>(captured),
        Some((_, NodeTopic::ControlDeploy)) => through::<Deploy>(captured),
        Some((_, NodeTopic::ControlDelete)) => through::<Delete>(captured),
        Some((_, NodeTopic::Subnet)) => through::<SubnetRequest>(captured),
        Some((_, NodeTopic::SubnetResult)) => through::<SubnetResult>(captured),
        Some((_, NodeTopic::TableQuery)) => through::<TableQuery>(captured),
        Some((_, NodeTopic::TableResult)) => through::<TableResult>(captured),
        Some((_, NodeTopic::ServiceDeployed)) => through::<ServiceDeployed>(captured),
        Some((_, topic)) => panic!("{topic:?} was not captured when this was written"),
        None if source.starts_with("/api/service/") => through::<Service>(captured),
        None if source.starts_with("/api/clusters/") => through::<Vec<Cluster>>(captured),
        None if source == "cluster /api/cluster/status" => through::<ClusterStatus>(captured),
        // Only the root has this document, as its API's own type.
        None if source == "/api/applications/" => Ok(captured.clone()),
        None => panic!("what is {source:?}?"),
    }
}

fn through<T: DeserializeOwned + Serialize>(captured: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(T::deserialize(captured)?)
}

/// Whether `written` says all that `captured` says. Ours may say more, and does not repeat what is blank.
fn contains(written: &Value, captured: &Value) -> Result<(), String> {
    match (written, captured) {
        // An id as text where the root's API has Mongo's extended form, which its own layer writes.
        (Value::String(text), Value::Object(extended))
            if extended.get("$oid") == Some(&text.as_str().into()) =>
        {
            Ok(())
        }
        // Go's null for an empty list.
        (Value::Array(written), Value::Null) if written.is_empty() => Ok(()),
        (Value::Object(written), Value::Object(captured)) => {
            captured.iter().try_for_each(|(key, captured)| match written.get(key) {
                // A mean over nothing is the integer 0 there and a number with a fraction otherwise.
                Some(written) if key.ends_with("_percent") && written.as_f64() == captured.as_f64() => Ok(()),
                Some(written) => {
                    contains(written, captured).map_err(|difference| format!("{key}: {difference}"))
                }
                None if captured.is_null() || captured == "" => Ok(()),
                None => Err(format!("{key} is missing")),
            })
        }
        (Value::Array(written), Value::Array(captured)) if written.len() == captured.len() => {
            written.iter().zip(captured).try_for_each(|(written, captured)| contains(written, captured))
        }
        _ if written == captured => Ok(()),
        _ => Err(format!("{written} instead of {captured}")),
    }
}
