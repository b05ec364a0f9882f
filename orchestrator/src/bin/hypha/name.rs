//! Names as people type them and as tables show them: `app/service/instance`, never an id.
//!
//! A short form stands for the only thing that it fits. Each part may carry its namespace (`shop.prod/web.prod`), which
//! is shown only where the name alone would be ambiguous. Oakestra's `app.ns.service.ns`, the container's id and the
//! bare id of a document are understood too.

use std::collections::BTreeSet;

use protocol::id::Id;
use protocol::service::Service;

use crate::api::App;
use crate::args::Kind;
use crate::exit::Exit;
use crate::failure::Failure;

/// All names there are, by which any one can be found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    apps: &'a [App],
    services: &'a [Service],
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    App(Id),
    Service(Id),
    Instance(Id, u32),
}

impl Target {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::App(_) => Kind::App,
            Self::Service(_) => Kind::Service,
            Self::Instance(..) => Kind::Instance,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("no {} '{text}'", kinds(wanted))]
    Unknown { text: String, wanted: Vec<Kind>, nearest: Vec<String> },
    #[error("'{text}' could be any of {}", choices.len())]
    Ambiguous { text: String, choices: Vec<String> },
}

fn kinds(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.singular()).collect::<Vec<_>>().join(" or ")
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        let title = error.to_string();
        match error {
            NameError::Unknown { wanted, nearest, .. } => {
                let list = wanted.last().map_or("apps", |kind| kind.plural());
                let failure = Self::new(Exit::NotFound, title).hint(format!("hypha get {list}"));
                Self { nearest, ..failure }
            }
            NameError::Ambiguous { choices, .. } => {
                let failure = choices.into_iter().fold(Self::new(Exit::Usage, title), Self::detail);
                failure.hint("say which by one of these names")
            }
        }
    }
}

impl<'a> Names<'a> {
    pub(crate) const fn new(apps: &'a [App], services: &'a [Service]) -> Self {
        Self { apps, services }
    }

    /// The shortest name of the application that no other one has.
    fn app_label(&self, app: &App) -> String {
        let alone = self.apps.iter().filter(|other| other.name == app.name).count() < 2;
        if alone { app.name.clone() } else { format!("{}.{}", app.name, app.namespace) }
    }

    fn service_label(&self, service: &Service) -> String {
        // A service whose application is not listed is still shown by name.
        let app = self.apps.iter().find(|app| app.id == service.application_id);
        let app = app.map_or_else(|| service.app_name.clone(), |app| self.app_label(app));
        let same = |other: &&Service| {
            other.application_id == service.application_id && other.service_name == service.service_name
        };
        if self.services.iter().filter(same).count() < 2 {
            format!("{app}/{}", service.service_name)
        } else {
            format!("{app}/{}.{}", service.service_name, service.service_ns)
        }
    }

    /// The name by which tables show it.
    pub(crate) fn label(&self, target: Target) -> String {
        let service = |id| self.services.iter().find(|service| service.id == id);
        match target {
            Target::App(id) => self
                .apps
                .iter()
                .find(|app| app.id == id)
                .map_or_else(|| id.to_string(), |app| self.app_label(app)),
            Target::Service(id) => {
                service(id).map_or_else(|| id.to_string(), |service| self.service_label(service))
            }
            Target::Instance(id, number) => format!("{}/{number}", self.label(Target::Service(id))),
        }
    }

    /// Finds the one thing of one of the `wanted` kinds that `text` fits.
    pub(crate) fn find(&self, text: &str, wanted: &[Kind]) -> Result<Target, NameError> {
        let found: BTreeSet<Target> = self
            .spellings(wanted)
            .filter(|(spelling, _)| spelling == text)
            .map(|(_, target)| target)
            .collect();
        let mut found = found.into_iter();
        match (found.next(), found.len()) {
            (Some(target), 0) => Ok(target),
            (Some(first), _) => {
                let choices = std::iter::once(first).chain(found);
                let choices =
                    choices.map(|target| format!("{}/{}", target.kind().singular(), self.label(target)));
                Err(NameError::Ambiguous { text: text.to_owned(), choices: choices.collect() })
            }
            (None, _) => Err(NameError::Unknown {
                text: text.to_owned(),
                wanted: wanted.to_vec(),
                nearest: self.nearest(text, wanted),
            }),
        }
    }

    /// Every way to write every thing of the `wanted` kinds.
    fn spellings(&self, wanted: &[Kind]) -> impl Iterator<Item = (String, Target)> {
        let apps = wanted.contains(&Kind::App).then_some(self.apps).into_iter().flatten();
        let apps = apps.flat_map(|app| {
            let forms = [app.name.clone(), format!("{}.{}", app.name, app.namespace), app.id.to_string()];
            forms.into_iter().map(|form| (form, Target::App(app.id)))
        });
        let services = wanted.contains(&Kind::Service).then_some(self.services).into_iter().flatten();
        let services = services.flat_map(|service| {
            service_forms(service).into_iter().map(|form| (form, Target::Service(service.id)))
        });
        let instances = wanted.contains(&Kind::Instance).then_some(self.services).into_iter().flatten();
        let instances = instances.flat_map(|service| {
            service.instance_list.iter().flat_map(move |instance| {
                let number = instance.instance_number;
                let forms = service_forms(service).into_iter().map(move |form| format!("{form}/{number}"));
                let container = format!("{}.instance.{number}", service.job_name);
                forms.chain([container]).map(move |form| (form, Target::Instance(service.id, number)))
            })
        });
        apps.chain(services).chain(instances)
    }

    /// At most three names that come near, by the fewest letters to change.
    fn nearest(&self, text: &str, wanted: &[Kind]) -> Vec<String> {
        let lower = text.to_lowercase();
        let mut near: Vec<(usize, Target)> = self
            .spellings(wanted)
            .map(|(spelling, target)| (strsim::damerau_levenshtein(&lower, &spelling.to_lowercase()), target))
            .filter(|(distance, _)| *distance <= 1 + lower.chars().count() / 3)
            .collect();
        near.sort_unstable();
        let mut labels = Vec::new();
        for (_, target) in near {
            let label = self.label(target);
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels.truncate(3);
        labels
    }
}

fn service_forms(service: &Service) -> Vec<String> {
    let (app, service_name) = (&service.app_name, &service.service_name);
    let (full_app, full_service) =
        (format!("{app}.{}", service.app_ns), format!("{service_name}.{}", service.service_ns));
    vec![
        service_name.clone(),
        full_service.clone(),
        format!("{app}/{service_name}"),
        format!("{app}/{full_service}"),
        format!("{full_app}/{service_name}"),
        format!("{full_app}/{full_service}"),
        service.job_name.to_string(),
        service.id.to_string(),
    ]
}

#[cfg(test)]
mod tests;
