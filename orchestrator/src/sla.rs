//! Whether a deployment descriptor (SLA v2) makes sense: every wrong field by its path, all at once. Pure.
//!
//! A document that passes can be read as [`protocol::sla::Document`], and what is in it is within bounds that keep
//! one document from exhausting the root. Keys that are not known are let through and kept.

mod address;
mod port;
mod service;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use protocol::name::{PART_MAX, is_valid_part};
use protocol::sla::{Document, VERSION};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::root::pool::Given;

const APPLICATIONS_MAX: usize = 100;
const SERVICES_MAX: usize = 1000;
/// Bytes of a description.
pub const DESCRIPTION_MAX: usize = 4096;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Violation {
    /// Where: `applications[0].microservices[1].port`. Empty for the document as a whole.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub message: String,
}

impl Violation {
    #[must_use]
    pub fn new(path: String, message: String) -> Self {
        Self { path, message }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "document" } else { &self.path };
        write!(f, "{path}: {}", self.message)
    }
}

/// Checks a document and reads it. `services` are the ServiceIPs that may be chosen; who does not know them leaves that to
/// the root. `is_taken` says whether somebody has one already.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(
    document: &Value,
    services: Option<Given>,
    is_taken: &dyn Fn(IpAddr) -> bool,
) -> Result<Document, Vec<Violation>> {
    let mut check = Check { violations: Vec::new(), services, is_taken, chosen: HashSet::new() };
    check.document(document);
    if !check.violations.is_empty() {
        return Err(check.violations);
    }
    Document::deserialize(document).map_err(|error| vec![Violation::new(String::new(), error.to_string())])
}

/// The walk through a document.
struct Check<'a> {
    violations: Vec<Violation>,
    services: Option<Given>,
    is_taken: &'a dyn Fn(IpAddr) -> bool,
    /// ServiceIPs that the document asks for, so that it does not ask for one twice.
    chosen: HashSet<IpAddr>,
}

impl Check<'_> {
    fn document(&mut self, document: &Value) {
        let Some(document) = self.object(document, "") else { return };
        if let Some(version) = self.required_text(document, "", "sla_version", usize::MAX)
            && version != VERSION
        {
            self.wrong("sla_version", format!("expected {VERSION:?}, got {version:?}"));
        }
        self.required_text(document, "", "customerID", DESCRIPTION_MAX);
        let Some(applications) = self.required_list(document, "", "applications", APPLICATIONS_MAX) else {
            return;
        };
        if applications.is_empty() {
            self.wrong("applications", "expected at least one application");
        }
        let mut names = HashSet::new();
        for (index, application) in applications.iter().enumerate() {
            let path = format!("applications[{index}]");
            let Some(application) = self.object(application, &path) else { continue };
            if let Some(name) = self.name(application, &path, "application_name", "application_namespace")
                && !names.insert(name.clone())
            {
                self.wrong(&path, format!("a second application named {name}"));
            }
            self.text(application, &path, "applicationID", PART_MAX);
            self.text(application, &path, "application_desc", DESCRIPTION_MAX);
            self.services(application, &path);
        }
    }

    fn services(&mut self, application: &Map<String, Value>, path: &str) {
        let Some(services) = self.required_list(application, path, "microservices", SERVICES_MAX) else {
            return;
        };
        let mut names = HashSet::new();
        for (index, service) in services.iter().enumerate() {
            let path = format!("{path}.microservices[{index}]");
            let Some(service) = self.object(service, &path) else { continue };
            if let Some(name) = self.name(service, &path, "microservice_name", "microservice_namespace")
                && !names.insert(name.clone())
            {
                self.wrong(&path, format!("a second service named {name}"));
            }
            self.service(service, &path);
        }
    }

    /// The two parts of a name, when both are valid.
    fn name(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        namespace: &str,
    ) -> Option<String> {
        let mut part = |key: &str| {
            let text = self.required_text(object, path, key, usize::MAX)?;
            if !is_valid_part(text) {
                let expected =
                    format!("expected 1 to {PART_MAX} letters or digits, got {:?}", shortened(text));
                self.wrong(&join(path, key), expected);
                return None;
            }
            Some(text.to_owned())
        };
        let (name, namespace) = (part(name), part(namespace));
        Some(format!("{}.{}", name?, namespace?))
    }

    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.violations.push(Violation::new(path.to_owned(), message.into()));
    }

    fn object<'v>(&mut self, value: &'v Value, path: &str) -> Option<&'v Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.wrong(path, format!("expected an object, got {}", kind(value)));
        }
        object
    }

    /// A text that may be missing.
    fn text<'v>(
        &mut self,
        object: &'v Map<String, Value>,
        path: &str,
        key: &str,
        max: usize,
    ) -> Option<&'v str> {
        let value = present(object, key)?;
        let Some(text) = value.as_str() else {
            self.wrong(&join(path, key), format!("expected text, got {}", kind(value)));
            return None;
        };
        if text.len() > max {
            self.wrong(&join(path, key), format!("expected at most {max} bytes, got {}", text.len()));
            return None;
        }
        if text.contains('\0') {
            self.wrong(&join(path, key), "a zero byte cannot be passed on");
            return None;
        }
        Some(text)
    }

    fn required_text<'v>(
        &mut self,
        object: &'v Map<String, Value>,
        path: &str,
        key: &str,
        max: usize,
    ) -> Option<&'v str> {
        self.required(object, path, key)?;
        self.text(object, path, key, max)
    }

    /// A list that may be missing.
    fn list<'v>(
        &mut self,
        object: &'v Map<String, Value>,
        path: &str,
        key: &str,
        max: usize,
    ) -> Option<&'v Vec<Value>> {
        let value = present(object, key)?;
        let Some(list) = value.as_array() else {
            self.wrong(&join(path, key), format!("expected a list, got {}", kind(value)));
            return None;
        };
        if list.len() > max {
            self.wrong(&join(path, key), format!("expected at most {max} elements, got {}", list.len()));
            return None;
        }
        Some(list)
    }

    fn required_list<'v>(
        &mut self,
        object: &'v Map<String, Value>,
        path: &str,
        key: &str,
        max: usize,
    ) -> Option<&'v Vec<Value>> {
        self.required(object, path, key)?;
        self.list(object, path, key, max)
    }

    fn required(&mut self, object: &Map<String, Value>, path: &str, key: &str) -> Option<()> {
        if present(object, key).is_none() {
            self.wrong(&join(path, key), "is required");
            return None;
        }
        Some(())
    }
}

/// A value that is there; `null` is not.
fn present<'v>(object: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
