//! An SLA file: read, and looked over before anything is sent.
//!
//! `"instances": N` at a service is a key of ours: how many are to run. The root lets it pass like any key that it
//! does not know.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use orchestrator::sla::Violation;
use protocol::id::Id;
use protocol::sla::{Application, Document, Microservice};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::{Failure, Findings, Problem};
use crate::locate::locate;

/// A document that could be read.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// How messages call the file.
    pub(crate) file: String,
    text: String,
    /// Every key kept.
    raw: Value,
    pub(crate) document: Document,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("read {file}: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("{file} is no valid SLA")]
    Invalid { file: String, problems: Vec<Problem> },
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        let title = error.to_string();
        match error {
            ManifestError::Read { .. } => Self::new(Exit::Usage, title),
            ManifestError::Invalid { file, problems } => {
                let findings = Findings { file: Some(file), problems };
                Self {
                    findings: Some(findings.into()),
                    ..Self::new(Exit::Usage, title).hint("hypha help sla")
                }
            }
        }
    }
}

/// Reads `path`, or stdin for `-`.
pub(crate) fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let is_stdin = path.as_os_str() == "-";
    let file = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let mut text = Vec::new();
    let read = if is_stdin {
        std::io::stdin().lock().read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text))
    };
    match read {
        Ok(_) => parse(file, &text),
        Err(source) => Err(ManifestError::Read { file, source }),
    }
}

pub(crate) fn parse(file: String, text: &[u8]) -> Result<Manifest, ManifestError> {
    let invalid = |problems| ManifestError::Invalid { file: file.clone(), problems };
    let syntax = |error: &serde_json::Error| Problem {
        path: String::new(),
        position: Some((error.line(), error.column())),
        message: without_position(error),
    };
    let text = std::str::from_utf8(text).map_err(|error| {
        let message = format!("not UTF-8: byte {} does not belong there", error.valid_up_to());
        invalid(vec![Problem { message, ..Problem::default() }])
    })?;
    let raw: Value = serde_json::from_str(text).map_err(|error| invalid(vec![syntax(&error)]))?;
    // The root's own rules. Which addresses services may have, and which are taken, is for the root to say.
    let document = orchestrator::sla::check(&raw, None, &|_address| false).map_err(|violations| {
        let problem =
            |Violation { path, message }| Problem { position: Some(locate(text, &path)), path, message };
        invalid(violations.into_iter().map(problem).collect())
    })?;
    Ok(Manifest { text: text.to_owned(), file, raw, document })
}

/// serde_json appends ` at line 3 column 7`, which stands in front already.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

/// How many instances the author wants; `None` where the file leaves it open.
pub(crate) fn instances(service: &Microservice) -> Option<usize> {
    service.extra.get("instances").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok())
}

impl Manifest {
    pub(crate) fn apps(&self) -> impl Iterator<Item = &Application> {
        self.document.applications.iter()
    }

    /// The document as it was written, every key kept.
    pub(crate) const fn raw(&self) -> &Value {
        &self.raw
    }

    /// Line and column of a path, or of the nearest thing around it.
    pub(crate) fn position(&self, path: &str) -> (usize, usize) {
        locate(&self.text, path)
    }

    /// The document reduced to a part of it.
    pub(crate) fn select(&self, part: &Part) -> Value {
        let mut document = self.raw.clone();
        let apps: Vec<Value> = document["applications"].as_array().cloned().unwrap_or_default();
        let apps = apps.into_iter().enumerate();
        document["applications"] = match part {
            Part::Apps(kept) => apps.filter(|(at, _)| kept.contains(at)).map(|(_, app)| app).collect(),
            Part::Services { app, id, kept } => apps
                .filter(|(at, _)| at == app)
                .map(|(_, mut app)| {
                    let services = app["microservices"].as_array().cloned().unwrap_or_default();
                    let services = services.into_iter().enumerate().filter(|(at, _)| kept.contains(at));
                    app["microservices"] = services.map(|(_, service)| service).collect();
                    app["applicationID"] = json!(id);
                    app
                })
                .collect(),
        };
        document
    }

    /// A refusal of a part of the document: what is wrong in it, by its place in the file.
    pub(crate) fn blame(&self, mut failure: Failure, part: &Part) -> Failure {
        if let Some(findings) = &mut failure.findings {
            findings.file = Some(self.file.clone());
            for problem in &mut findings.problems {
                problem.path = part.original(&problem.path);
                problem.position = Some(self.position(&problem.path));
            }
        }
        failure
    }
}

/// A part of a document, by positions in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Whole applications.
    Apps(BTreeSet<usize>),
    /// Some services of one application, which the root knows as `id`.
    Services { app: usize, id: Id, kept: BTreeSet<usize> },
}

impl Part {
    /// A path in the part as a path in the whole.
    fn original(&self, path: &str) -> String {
        const APPS: &str = "applications";
        const SERVICES: &str = ".microservices";
        let Some((app, rest)) = index(path, APPS) else { return path.to_owned() };
        match self {
            Self::Apps(kept) => format!("{APPS}[{}]{rest}", kept.iter().nth(app).copied().unwrap_or(app)),
            Self::Services { app, kept, .. } => match index(rest, SERVICES) {
                Some((service, rest)) => {
                    let service = kept.iter().nth(service).copied().unwrap_or(service);
                    format!("{APPS}[{app}]{SERVICES}[{service}]{rest}")
                }
                None => format!("{APPS}[{app}]{rest}"),
            },
        }
    }
}

/// `name[3].rest` as 3 and `.rest`.
fn index<'a>(path: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = path.strip_prefix(name)?.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Failure, Findings, Part, Problem, instances, parse};
    use crate::exit::Exit;
    use crate::terminal::Paint;

    const HELLO: &str = r#"{"sla_version": "v2.0", "customerID": "Admin", "applications": [
        {"application_name": "hello", "application_namespace": "demo", "microservices": [
            {"microservice_name": "web", "microservice_namespace": "demo", "virtualization": "container",
             "code": "docker.io/hypha/busybox:1", "instances": 3}]}]}"#;

    fn complaint(text: &str) -> String {
        let failure = Failure::from(parse("shop.json".into(), text.as_bytes()).unwrap_err());
        assert_eq!(failure.exit, Exit::Usage);
        failure.text(Paint::never())
    }

    #[test]
    fn instances_is_a_key_of_ours() {
        let manifest = parse("hello.json".into(), HELLO.as_bytes()).unwrap();
        assert_eq!(instances(&manifest.document.applications[0].microservices[0]), Some(3));
        assert_eq!(manifest.raw["applications"][0]["microservices"][0]["instances"], 3);
        let message = complaint(&HELLO.replace("3}", "-1}"));
        assert!(
            message.contains("applications[0].microservices[0].instances: expected a whole number"),
            "{message}"
        );
    }

    #[test]
    fn a_slip_in_the_syntax_is_shown_by_line_and_column() {
        let message = complaint("{\n  \"sla_version\": \"v2.0\",\n  oops\n}");
        assert!(message.contains("  shop.json:3:3  key must be a string"), "{message}");
        let message = complaint(&HELLO.replace("\"container\"", "7"));
        assert!(message.contains("shop.json:3:"), "{message}");
        assert!(message.contains(".virtualization: expected text, got a number"), "{message}");
        assert!(complaint("").contains("EOF while parsing"), "an empty file");
    }

    #[test]
    fn what_the_root_finds_in_a_part_is_shown_at_its_place_in_the_file() {
        let mut whole: serde_json::Value = serde_json::from_str(HELLO).unwrap();
        let app = whole["applications"][0].clone();
        let service = app["microservices"][0].clone();
        whole["applications"] = json!([app, app]);
        whole["applications"][1]["application_name"] = json!("shop");
        let named = |name: &str| {
            let mut service = service.clone();
            service["microservice_name"] = json!(name);
            service
        };
        whole["applications"][1]["microservices"] = json!([named("a"), named("b"), named("c")]);
        let manifest = parse("two.json".into(), format!("{whole:#}").as_bytes()).unwrap();
        let part = Part::Services { app: 1, id: crate::sample::id(7), kept: [0, 2].into() };
        let sent = manifest.select(&part);
        assert_eq!(sent["applications"][0]["microservices"].as_array().map(Vec::len), Some(2));
        assert_eq!(sent["applications"][0]["applicationID"], json!(crate::sample::id(7)));
        assert_eq!(
            part.original("applications[0].microservices[1].port"),
            "applications[1].microservices[2].port"
        );
        let apps = Part::Apps([1].into());
        assert_eq!(manifest.select(&apps)["applications"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            apps.original("applications[0].microservices[1].port"),
            "applications[1].microservices[1].port"
        );
        assert_eq!(apps.original("customerID"), "customerID");
        let problem = Problem { path: "applications[0].application_name".into(), ..Problem::default() };
        let findings = Findings { file: None, problems: vec![problem] };
        let failure = Failure { findings: Some(findings.into()), ..Failure::new(Exit::Usage, "refused") };
        let text = manifest.blame(failure, &apps).text(Paint::never());
        assert!(text.contains("two.json:17:27  applications[1].application_name"), "{text}");
    }
}
