//! Writes JSON values as YAML. Only writes: reading YAML would need a parser.

use serde_json::Value;

/// Block style; text that could be taken for something else is quoted as JSON quotes it, which YAML reads.
pub(crate) fn write(value: &Value) -> String {
    match value {
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| item_lines("- ", "  ", item)).collect::<Vec<_>>().join("\n")
        }
        Value::Object(members) if !members.is_empty() => {
            members.iter().map(|(key, member)| member_lines(key, member)).collect::<Vec<_>>().join("\n")
        }
        Value::String(text) => scalar(text),
        scalar => scalar.to_string(),
    }
}

/// `value` behind `first`, its later lines behind `rest`.
fn item_lines(first: &str, rest: &str, value: &Value) -> String {
    let text = write(value);
    let mut lines = text.lines();
    let head = format!("{first}{}", lines.next().unwrap_or_default());
    lines.fold(head, |text, line| format!("{text}\n{rest}{line}"))
}

fn member_lines(key: &str, value: &Value) -> String {
    let key = scalar(key);
    let nested = match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => false,
    };
    if nested {
        format!("{key}:\n{}", item_lines("  ", "  ", value))
    } else {
        format!("{key}: {}", write(value))
    }
}

/// Plain only where no reader of YAML 1.1 or 1.2 sees anything but text in it.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn nested_lists_and_objects_are_indented() {
        let value = json!([{ "a": { "b": [1, { "c": null }], "d": [] }, "e": "no" }, "x y", 2.5]);
        let expected = "\
- a:
    b:
      - 1
      - c: null
    d: []
  e: \"no\"
- \"x y\"
- 2.5";
        assert_eq!(super::write(&value), expected);
    }

    #[test]
    fn text_that_looks_like_something_else_is_quoted() {
        for text in ["", "1", "true", "On", "- a", "a: b", "#x", "10.30.0.1", "a\nb", "*x"] {
            assert!(super::scalar(text).starts_with('"'), "{text:?} stands bare");
        }
        assert_eq!(super::scalar("docker.io/library/nginx"), "docker.io/library/nginx");
    }
}
