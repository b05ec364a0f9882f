//! How a failure is told: what happened to which object, what comes near, and what to type next.
//!
//! Each area has its own error type; this is the form in which all of them reach a person or a script.

use serde_json::{Value, json};

use crate::exit::Exit;
use crate::terminal::Paint;

/// One thing that is wrong in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where: `applications[0].microservices[1].memory`. Empty for the whole document.
    pub(crate) path: String,
    /// Line and column in the file, counted from 1, where the path was found in it.
    pub(crate) position: Option<(usize, usize)>,
    pub(crate) message: String,
}

/// Everything that is wrong in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// What the document was read from, where that is known.
    pub(crate) file: Option<String>,
    pub(crate) problems: Vec<Problem>,
}

/// A failure, ready to be shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One line: what was being done to which object, and why it did not work.
    pub(crate) title: String,
    /// More of the cause, a line each.
    pub(crate) details: Vec<String>,
    pub(crate) findings: Option<Box<Findings>>,
    /// Names that come near the one that was not found, or the choices if there are several.
    pub(crate) nearest: Vec<String>,
    /// The next useful command, or what to check.
    pub(crate) hint: Option<String>,
    /// The HTTP status, where the root answered.
    pub(crate) status: Option<u16>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, title: impl Into<String>) -> Self {
        Self {
            exit,
            title: title.into(),
            details: Vec::new(),
            findings: None,
            nearest: Vec::new(),
            hint: None,
            status: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// For a person, on stderr.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut lines = vec![format!("{} {}", paint.error("error:"), self.title)];
        lines.extend(self.findings.iter().flat_map(|findings| findings.lines()));
        lines.extend(self.details.iter().map(|detail| format!("  {detail}")));
        if !self.nearest.is_empty() {
            lines.push(format!("  nearest: {}", self.nearest.join("  ")));
        }
        if let Some(hint) = &self.hint {
            lines.push(format!("  {} {hint}", paint.faint("next:")));
        }
        lines.join("\n")
    }

    /// For a script, on stderr: the form of RFC 9457.
    pub(crate) fn json(&self) -> Value {
        let mut body = json!({
            "type": "about:blank",
            "title": self.title,
            "code": self.exit.code(),
            "exit": self.exit as u8,
        });
        if let Some(status) = self.status {
            body["status"] = json!(status);
        }
        if !self.details.is_empty() {
            body["detail"] = json!(self.details.join("\n"));
        }
        if let Some(findings) = &self.findings {
            body["errors"] = findings.problems.iter().map(problem_json).collect();
            body["file"] = json!(findings.file);
        }
        if !self.nearest.is_empty() {
            body["nearest"] = json!(self.nearest);
        }
        if let Some(hint) = &self.hint {
            body["hint"] = json!(hint);
        }
        body
    }
}

impl Findings {
    /// `  shop.json:14:19  constraints[0].threshold: expected kilometres > 0`
    fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| {
            let place = match (&self.file, problem.position) {
                (Some(file), Some((line, column))) => format!("{file}:{line}:{column}  "),
                _ => String::new(),
            };
            let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            format!("  {place}{path}{}", problem.message)
        })
    }
}

fn problem_json(problem: &Problem) -> Value {
    let mut body = json!({ "path": problem.path, "detail": problem.message });
    if let Some((line, column)) = problem.position {
        body["line"] = json!(line);
        body["column"] = json!(column);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::{Failure, Findings, Problem};
    use crate::exit::Exit;
    use crate::terminal::Paint;

    #[test]
    fn an_unknown_name_is_told_with_its_nearest_and_the_next_command() {
        let mut failure = Failure::new(Exit::NotFound, "no service 'wbe'").hint("hypha get services");
        failure.nearest = vec!["hello/web".into()];
        assert_eq!(
            failure.text(Paint::never()),
            "error: no service 'wbe'\n  nearest: hello/web\n  next: hypha get services"
        );
    }

    #[test]
    fn a_problem_in_a_file_names_line_column_and_path() {
        let mut failure = Failure::new(Exit::Usage, "shop.json is no valid SLA");
        let problem = Problem {
            path: "applications[0].memory".into(),
            position: Some((14, 19)),
            message: "expected a number".into(),
        };
        failure.findings = Some(Findings { file: Some("shop.json".into()), problems: vec![problem] }.into());
        assert_eq!(
            failure.text(Paint::never()),
            "error: shop.json is no valid SLA\n  shop.json:14:19  applications[0].memory: expected a number"
        );
        assert_eq!(failure.json()["errors"][0]["line"], 14);
        assert_eq!(failure.json()["exit"], 2);
    }
}
