//! What the root answers when it does not do it, and what that means for the one who asked.

use std::error::Error;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::address::Address;
use crate::exit::Exit;
use crate::failure::{Failure, Findings, Problem};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    #[error("not logged in at {root}")]
    NotLoggedIn { root: Address },
    #[error("the login at {root} has run out")]
    Expired { root: Address },
    #[error("{root} does not know this user and password")]
    WrongPassword { root: Address },
    #[error("not allowed{}", told(message))]
    Forbidden { message: String },
    #[error("not found at the root{}", told(message))]
    NotFound { message: String },
    #[error("the root finds it invalid{}", told(message))]
    Invalid { message: String, problems: Vec<Problem> },
    #[error("it conflicts with what is there{}", told(message))]
    Conflict { message: String },
    #[error("the root answered {method} {path} with {status}{}", told(message))]
    Refused { method: Method, path: String, status: StatusCode, message: String },
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("the answer of {root} to {path} is not what a root answers: {reason}")]
    Foreign { root: Address, path: String, reason: String },
}

/// No answer at all, or not all of it.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the root at {root}")]
pub(crate) struct Unreachable {
    pub(crate) root: Address,
    pub(crate) source: reqwest::Error,
}

fn told(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl ApiError {
    pub(super) fn foreign(root: &Address, path: &str, reason: &str) -> Self {
        Self::Foreign { root: root.clone(), path: path.to_owned(), reason: reason.to_owned() }
    }

    const fn status(&self) -> Option<u16> {
        match self {
            Self::Expired { .. } | Self::WrongPassword { .. } => Some(401),
            Self::Forbidden { .. } => Some(403),
            Self::NotFound { .. } => Some(404),
            Self::Invalid { .. } => Some(422),
            Self::Conflict { .. } => Some(409),
            Self::Refused { status, .. } => Some(status.as_u16()),
            Self::Setup(_) | Self::NotLoggedIn { .. } | Self::Unreachable(_) | Self::Foreign { .. } => None,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match &error {
            ApiError::Setup(_) | ApiError::Refused { .. } | ApiError::Foreign { .. } => Exit::Failed,
            ApiError::NotLoggedIn { .. }
            | ApiError::Expired { .. }
            | ApiError::WrongPassword { .. }
            | ApiError::Forbidden { .. } => Exit::LogIn,
            ApiError::NotFound { .. } => Exit::NotFound,
            ApiError::Invalid { .. } => Exit::Usage,
            ApiError::Conflict { .. } => Exit::Conflict,
            ApiError::Unreachable(_) => Exit::OutOfReach,
        };
        let mut failure = Self::new(exit, error.to_string());
        failure.status = error.status();
        match error {
            ApiError::Setup(source) => failure.detail(cause(&source)),
            ApiError::NotLoggedIn { root } | ApiError::Expired { root } => {
                failure.hint(format!("hypha login {root}"))
            }
            ApiError::Unreachable(Unreachable { root, source }) => {
                unreachable_failure(failure, &root, &source)
            }
            ApiError::Invalid { problems, .. } if problems.is_empty() => failure,
            ApiError::Invalid { problems, .. } => {
                Self { findings: Some(Findings { file: None, problems }.into()), ..failure }
            }
            ApiError::Foreign { .. } => failure.hint("does another program listen there? hypha login URL"),
            _ => failure,
        }
    }
}

/// Says what to check, by what went wrong.
fn unreachable_failure(failure: Failure, root: &Address, error: &reqwest::Error) -> Failure {
    let cause = cause(error);
    let check = if error.is_timeout() {
        "the host is down, a firewall drops the packets, or the root is overloaded: ping it, check port and address"
    } else if cause.contains("refused") {
        "nothing listens there: does `orchestrator root` run on that machine, and on that port?"
    } else if cause.contains("lookup") || cause.contains("resolve") {
        "the name is not known here: check its spelling and the resolver, or use the address"
    } else {
        "check the address and the network"
    };
    failure.detail(cause).detail(format!("check: {check}")).hint(format!("curl {root}/api/clusters/"))
}

/// The innermost cause: the outer ones of reqwest repeat the address.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What an answer that is no success means.
pub(super) fn read(
    root: &Address,
    method: &Method,
    path: &str,
    status: StatusCode,
    body: Option<&Value>,
    bytes: &[u8],
) -> ApiError {
    let message = body.map_or_else(|| excerpt(bytes), message);
    match status.as_u16() {
        401 if path == "/api/auth/login" => ApiError::WrongPassword { root: root.clone() },
        401 => ApiError::Expired { root: root.clone() },
        403 => ApiError::Forbidden { message },
        404 => ApiError::NotFound { message },
        409 => ApiError::Conflict { message },
        400 | 422 => ApiError::Invalid { message, problems: body.map(problems).unwrap_or_default() },
        _ => ApiError::Refused { method: method.clone(), path: path.to_owned(), status, message },
    }
}

/// The sentence in an error body: RFC 9457, ours, Oakestra's and Flask's keys, the most telling first.
fn message(body: &Value) -> String {
    if let Value::String(text) = body {
        return text.clone();
    }
    let texts =
        ["detail", "message", "msg", "title", "error", "status"].iter().filter_map(|key| body[key].as_str());
    texts.map(str::to_owned).next().unwrap_or_default()
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().chars().take(200).collect()
}

/// The wrong fields, as a list of objects or as Flask's nested object of messages.
fn problems(body: &Value) -> Vec<Problem> {
    let listed = ["errors", "problems"].iter().map(|key| &body[key]).find(|value| !value.is_null());
    match listed {
        Some(Value::Array(items)) => items.iter().map(problem).collect(),
        Some(nested @ Value::Object(_)) => {
            let mut found = Vec::new();
            collect(nested, String::new(), &mut found);
            found
        }
        _ => Vec::new(),
    }
}

fn problem(item: &Value) -> Problem {
    if let Value::String(text) = item {
        return Problem { message: text.clone(), ..Problem::default() };
    }
    let path =
        ["path", "pointer", "field", "loc"].iter().find_map(|key| item[key].as_str()).unwrap_or_default();
    Problem { path: path.to_owned(), message: message(item), ..Problem::default() }
}

fn collect(value: &Value, path: String, found: &mut Vec<Problem>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                // Flask puts all of it under the place the data came from.
                let inner = match (path.is_empty(), key.as_str()) {
                    (true, "json" | "query") => String::new(),
                    (true, key) => key.to_owned(),
                    (false, key) => format!("{path}.{key}"),
                };
                collect(member, inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, path.clone(), found)),
        Value::String(text) => found.push(Problem { path, message: text.clone(), position: None }),
        other => found.push(Problem { path, message: other.to_string(), position: None }),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::{ApiError, Failure, read};
    use crate::exit::Exit;

    fn refused(path: &str, status: u16, body: &Value) -> ApiError {
        let root = "root.lan".parse().unwrap();
        read(&root, &Method::POST, path, StatusCode::from_u16(status).unwrap(), Some(body), b"")
    }

    fn exit(status: u16) -> Exit {
        Failure::from(refused("/api/application/", status, &json!({}))).exit
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        assert_eq!(exit(401), Exit::LogIn);
        assert_eq!(exit(403), Exit::LogIn);
        assert_eq!(exit(404), Exit::NotFound);
        assert_eq!(exit(409), Exit::Conflict);
        assert_eq!(exit(422), Exit::Usage);
        assert_eq!(exit(500), Exit::Failed);
    }

    #[test]
    fn a_wrong_password_is_told_from_a_login_that_has_run_out() {
        let body = json!({ "code": 401, "status": "Unauthorized" });
        assert!(matches!(refused("/api/auth/login", 401, &body), ApiError::WrongPassword { .. }));
        let failure = Failure::from(refused("/api/services/", 401, &body));
        assert_eq!(failure.hint.as_deref(), Some("hypha login http://root.lan:10000"));
    }

    #[test]
    fn wrong_fields_are_listed_with_their_paths_in_either_form() {
        let ours = json!({ "title": "invalid", "errors": [{ "path": "a[0].b", "message": "too long" }] });
        let flask =
            json!({ "errors": { "json": { "a": { "0": ["too long"] } } }, "status": "Unprocessable Entity" });
        for (body, path) in [(ours, "a[0].b"), (flask, "a.0")] {
            let failure = Failure::from(refused("/api/application/", 422, &body));
            let problems = failure.findings.unwrap().problems;
            assert_eq!(problems.len(), 1, "{body}");
            assert_eq!((problems[0].path.as_str(), problems[0].message.as_str()), (path, "too long"));
        }
    }

    #[test]
    fn the_roots_own_words_are_passed_on() {
        let body = json!({ "message": "application hello exists" });
        assert_eq!(
            refused("/x", 409, &body).to_string(),
            "it conflicts with what is there: application hello exists"
        );
        assert_eq!(
            refused("/x", 501, &json!({})).to_string(),
            "the root answered POST /x with 501 Not Implemented"
        );
    }
}
