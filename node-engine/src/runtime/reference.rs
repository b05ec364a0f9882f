//! Image references: what people write, and the full name under which containerd stores an image.

use super::error::RuntimeError;

/// The full form of `text`: registry, repository and tag or digest, as containerd and `ctr` store it. `nginx` is
/// `docker.io/library/nginx:latest`.
///
/// # Errors
/// [`RuntimeError::BadReference`], saying what is wrong with it.
pub fn normalise(text: &str) -> Result<String, RuntimeError> {
    let bad = |why| RuntimeError::BadReference(text.chars().take(300).collect(), why);
    if text.contains("://") {
        return Err(bad("without a scheme like https://"));
    }
    if text.is_empty() || text.len() > 255 {
        return Err(bad("of 1 to 255 characters"));
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(bad("with a digest of the form sha256:<64 hexadecimal digits>"));
    }
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    // A colon after the last slash begins the tag; one before it belongs to a registry's port.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(bad("with a tag of letters, digits, `_`, `.` and `-`"));
    }
    if !path.split('/').all(is_path_part) {
        return Err(bad("with a name of lower-case letters, digits, `.`, `_`, `-` and `/`"));
    }
    if registry.bytes().any(|byte| !(byte.is_ascii_alphanumeric() || b".:-".contains(&byte))) {
        return Err(bad("with a registry that is a host name"));
    }
    let library = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
    let tag = match (tag, digest) {
        (Some(tag), _) => format!(":{tag}"),
        (None, Some(_)) => String::new(),
        (None, None) => ":latest".to_owned(),
    };
    let digest = digest.map_or_else(String::new, |digest| format!("@{digest}"));
    Ok(format!("{registry}/{library}{path}{tag}{digest}"))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_path_part(text: &str) -> bool {
    let ends_well = |character: Option<char>| {
        character.is_some_and(|character| character.is_ascii_lowercase() || character.is_ascii_digit())
    };
    ends_well(text.chars().next())
        && ends_well(text.chars().next_back())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn short_names_are_completed() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("edge/app", "docker.io/edge/app:latest".to_owned()),
            ("docker.io/library/bed:1", "docker.io/library/bed:1".to_owned()),
            ("ghcr.io/a/b/c:v1.0", "ghcr.io/a/b/c:v1.0".to_owned()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("registry:5000/app:2", "registry:5000/app:2".to_owned()),
            (&format!("nginx@{digest}"), format!("docker.io/library/nginx@{digest}")),
        ] {
            assert_eq!(normalise(text).unwrap(), full);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_a_hint() {
        for (text, hint) in [
            ("https://docker.io/library/nginx", "without a scheme"),
            ("", "1 to 255"),
            ("UPPER", "lower-case"),
            ("nginx:", "with a tag"),
            ("a b", "lower-case"),
            ("nginx@sha256:12", "digest"),
            ("../../etc/passwd", "lower-case"),
        ] {
            let error = normalise(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text:?}: {error}");
        }
    }
}
