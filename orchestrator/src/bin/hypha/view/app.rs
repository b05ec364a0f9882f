//! Rows of `hypha get apps`.

use serde_json::Value;

use crate::api::App;
use crate::fleet::Fleet;
use crate::name::Target;
use crate::output::{Column, Field, Mood, Row};
use orchestrator::standing::standing;

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("APP"),
    Column::text("NAMESPACE"),
    Column::number("SERVICES"),
    Column::number("READY"),
    Column::text("OWNER").wide(),
    Column::text("DESCRIPTION").wide(),
];

pub(crate) fn row(app: &App, document: &Value, fleet: &Fleet) -> Row {
    let standings: Vec<_> = fleet.services_of(app.id).map(standing).collect();
    let ready: usize = standings.iter().map(|standing| standing.ready).sum();
    let total: usize = standings.iter().map(|standing| standing.total).sum();
    let worst = |mood| standings.iter().any(|standing| standing.mood == mood);
    let mood = match (worst(Mood::Bad), worst(Mood::Changing), total) {
        (true, _, _) => Mood::Bad,
        (_, true, _) => Mood::Changing,
        (_, _, 0) => Mood::Plain,
        _ => Mood::Good,
    };
    let label = fleet.names().label(Target::App(app.id));
    Row {
        name: format!("app/{label}"),
        fields: vec![
            label.into(),
            app.namespace.as_str().into(),
            standings.len().to_string().into(),
            Field::mood(format!("{ready}/{total}"), mood),
            app.owner.as_str().into(),
            app.description.as_str().into(),
        ],
        document: document.clone(),
    }
}
