//! Payloads: those that were captured from Oakestra, and others made of them.

use integration::fuzz::Chance;
use serde_json::{Map, Value, json};

const CAPTURED: &str = include_str!("../fixtures/oakestra-payloads.txt");

/// The captured messages of the topics that end so.
pub(crate) fn captured(topic: &str) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut wanted = false;
    for line in CAPTURED.lines() {
        match line.strip_prefix("  ") {
            Some(body) if wanted => messages.push(serde_json::from_str(body).unwrap()),
            Some(_) => {}
            None => wanted = line.ends_with(topic),
        }
    }
    assert!(!messages.is_empty(), "nothing was captured of {topic}");
    messages
}

/// One of `seeds` as bytes, with something wrong in what it says or in how it says it; now and then unchanged.
pub(crate) fn spoilt(chance: &mut Chance, seeds: &[Value]) -> Vec<u8> {
    let mut value = chance.of(seeds).clone();
    for _ in 0..chance.below(4) {
        distort(chance, &mut value);
    }
    let mut bytes = value.to_string().into_bytes();
    if chance.one_in(4) {
        chance.spoil(&mut bytes, 0);
    }
    bytes
}

/// Changes one thing in a document.
fn distort(chance: &mut Chance, value: &mut Value) {
    if !chance.one_in(8) {
        match value {
            Value::Object(members) if !members.is_empty() => return distort_member(chance, members),
            Value::Array(items) if !items.is_empty() => {
                let at = chance.below(items.len());
                match chance.below(6) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    _ => distort(chance, &mut items[at]),
                }
                return;
            }
            _ => {}
        }
    }
    *value = other(chance);
}

fn distort_member(chance: &mut Chance, members: &mut Map<String, Value>) {
    let keys: Vec<_> = members.keys().cloned().collect();
    let key = chance.of(&keys);
    if chance.one_in(6) {
        members.remove(key);
    } else {
        distort(chance, &mut members[key.as_str()]);
    }
}

/// A value that somebody may not have thought of.
fn other(chance: &mut Chance) -> Value {
    const TEXTS: [&str; 24] = [
        "",
        " ",
        "\0",
        "x",
        "ä",
        "a.b.c.d",
        "a.b.c.d.e",
        "..",
        "../../etc/passwd",
        "a_b_c_d",
        "0",
        "-1",
        "65536",
        "99999999999999999999",
        "80:80/udp;443",
        "10.30.0.0",
        "10.30.255.255",
        "10.18.0.66",
        "10.18.0",
        "0.0.0.0",
        "::ffff:10.18.0.2",
        "fdff::",
        "255.255.255.255",
        "RUNNING",
    ];
    match chance.below(12) {
        0 => Value::Null,
        1 => json!(chance.one_in(2)),
        2 => json!(*chance.of(&[0_i64, 1, -1, 255, 65_535, 65_536, i64::MIN, i64::MAX])),
        3 => json!(*chance.of(&[4_294_967_295_u64, 4_294_967_296, u64::MAX])),
        4 => json!(*chance.of(&[0.5, -0.0, 1e-300, 1e300])),
        5 => json!([]),
        6 => json!({}),
        7 => json!("x".repeat(*chance.of(&[31, 256, 70_000]))),
        8 => (0..*chance.of(&[3, 100])).fold(Value::Null, |inner, _| json!([inner])),
        _ => json!(*chance.of(&TEXTS)),
    }
}
