//! What would become of a deployment descriptor, were it handed in: the same checks, and the same look at the clusters.

use protocol::decision::ClusterVerdict;
use protocol::id::Id;
use protocol::sla::{Document, Microservice};
use protocol::validation::{Invalid, PlannedApplication, PlannedService, Validation};
use serde_json::Value;

use super::failure::Failure;
use super::place::{self, Candidate};
use super::{Root, key};
use crate::sla::{self, Violation};

impl Root {
    /// Changes nothing, and holds nothing: what is free now may be taken when it is handed in.
    pub(super) async fn validate(&self, document: &Value) -> Result<Validation, Failure> {
        // By the rules alone first: an application that exists has its addresses itself.
        let checked = match sla::check(document, Some(self.given()), &|_address| false) {
            Ok(checked) => checked,
            Err(violations) => return Ok(invalid(violations)),
        };
        let exist = self.existing(&checked).await?;
        if !exist.contains(&true)
            && let Err(violations) =
                sla::check(document, Some(self.given()), &|address| self.pool().is_taken(address))
        {
            return Ok(invalid(violations));
        }
        let candidates = self.candidates().await?;
        let applications = checked.applications.iter().zip(exist).map(|(application, exists)| {
            let services = application.microservices.iter().map(|service| planned(service, &candidates));
            PlannedApplication {
                name: format!("{}.{}", application.application_name, application.application_namespace),
                exists,
                services: services.collect(),
            }
        });
        Ok(Validation { problems: Vec::new(), applications: applications.collect() })
    }

    /// Whether there is an application of the name of each.
    async fn existing(&self, document: &Document) -> Result<Vec<bool>, Failure> {
        let mut exist = Vec::new();
        for application in &document.applications {
            let name =
                key::application_name(&application.application_name, &application.application_namespace);
            exist.push(self.store.get::<Id>(&name).await?.is_some());
        }
        Ok(exist)
    }
}

fn invalid(violations: Vec<Violation>) -> Validation {
    let problems = violations.into_iter();
    let problems = problems.map(|Violation { path, message }| Invalid { pointer: pointer(&path), message });
    Validation { problems: problems.collect(), applications: Vec::new() }
}

fn planned(service: &Microservice, candidates: &[Candidate]) -> PlannedService {
    let mut clusters: Vec<_> = candidates
        .iter()
        .map(|candidate| ClusterVerdict {
            cluster: candidate.name.clone(),
            lacks: place::verdict(service, candidate).unwrap_or_default(),
        })
        .collect();
    clusters.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    let name = format!("{}.{}", service.microservice_name, service.microservice_namespace);
    PlannedService { name, clusters }
}

/// `applications[0].port` as a JSON pointer: `/applications/0/port`.
fn pointer(path: &str) -> String {
    let parts = path.split(['.', '[']).map(|part| part.trim_end_matches(']')).filter(|part| !part.is_empty());
    parts.map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

#[cfg(test)]
mod tests {
    use super::pointer;

    #[test]
    fn a_path_becomes_a_pointer() {
        for (path, expected) in [
            ("applications[0].microservices[12].port", "/applications/0/microservices/12/port"),
            ("sla_version", "/sla_version"),
            ("a/b[3]", "/a~1b/3"),
            ("", ""),
        ] {
            assert_eq!(pointer(path), expected);
        }
    }
}
