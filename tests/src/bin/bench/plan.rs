//! What is measured how often and for how long.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::arguments::{Arguments, Extra};
use crate::measure::Measure;
use crate::subject::{Underlay, Variant};

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    Full,
    Quick,
    Tiny,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) rounds: u32,
    pub(crate) duration: Duration,
    pub(crate) cells: Vec<(Underlay, Variant)>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) extras: Vec<Extra>,
}

impl Plan {
    /// # Errors
    /// When `--only` names nothing that there is.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self> {
        let (mode, rounds, seconds) = match arguments {
            Arguments { tiny: true, .. } => (Mode::Tiny, 1, 0.05),
            Arguments { quick: true, .. } => (Mode::Quick, 3, 0.5),
            _ => (Mode::Full, 5, 3.0),
        };
        let variants =
            Variant::BUILT_IN.into_iter().chain(arguments.extra.iter().map(|it| it.variant.clone()));
        let variants: Vec<_> = variants.collect();
        let names = Names::sort(&arguments.only, &variants)?;
        let measures: Vec<_> = Measure::ALL
            .into_iter()
            .filter(|measure| mode != Mode::Quick || measure.is_quick() || !names.measures.is_empty())
            .filter(|measure| {
                mode != Mode::Tiny || !measure.is_slow_to_set_up() || !names.measures.is_empty()
            })
            .filter(|measure| admits(&names.measures, &measure.id()))
            .collect();
        let cells = Underlay::ALL
            .into_iter()
            .filter(|underlay| admits(&names.underlays, underlay.id()))
            .flat_map(|underlay| variants.iter().map(move |variant| (underlay, variant.clone())))
            .filter(|(underlay, variant)| variant.exists_on(*underlay))
            .filter(|(_, variant)| admits(&names.variants, &variant.to_string()))
            .collect();
        Ok(Self {
            mode,
            rounds: arguments.rounds.unwrap_or(rounds),
            duration: arguments.seconds.unwrap_or(Duration::from_secs_f64(seconds)),
            cells,
            measures,
            extras: arguments.extra.clone(),
        })
    }
}

/// The words of `--only`, by what they name.
#[derive(Debug, Default)]
struct Names {
    measures: Vec<String>,
    variants: Vec<String>,
    underlays: Vec<String>,
}

impl Names {
    fn sort(words: &[String], variants: &[Variant]) -> Result<Self> {
        let mut names = Self::default();
        for word in words {
            if Measure::ALL.iter().any(|measure| begins(&measure.id(), word)) {
                names.measures.push(word.clone());
            } else if variants.iter().any(|variant| begins(&variant.to_string(), word)) {
                names.variants.push(word.clone());
            } else if Underlay::ALL.iter().any(|underlay| begins(underlay.id(), word)) {
                names.underlays.push(word.clone());
            } else {
                bail!(
                    "--only {word}: no measure, variant or underlay has a name that begins so (--list names all)"
                );
            }
        }
        Ok(names)
    }
}

/// Without names, everything is admitted.
fn admits(names: &[String], id: &str) -> bool {
    names.is_empty() || names.iter().any(|name| begins(id, name))
}

/// `tcp` begins `tcp-1`, and `plain` is not taken for `plain-xdp`, because it is a name itself.
fn begins(id: &str, name: &str) -> bool {
    id == name || (!is_name(name) && id.starts_with(name))
}

fn is_name(word: &str) -> bool {
    Variant::BUILT_IN.iter().any(|variant| variant.to_string() == word)
        || Measure::ALL.iter().any(|measure| measure.id() == word)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Mode, Plan};
    use crate::arguments::Arguments;

    fn plan(line: &str) -> Plan {
        Plan::new(&Arguments::try_parse_from(line.split(' ')).unwrap()).unwrap()
    }

    fn measures(plan: &Plan) -> Vec<String> {
        plan.measures.iter().map(|measure| measure.id()).collect()
    }

    #[test]
    fn a_full_run_takes_everything_at_least_five_times() {
        let plan = plan("bench");
        assert_eq!(plan.mode, Mode::Full);
        assert!(plan.rounds >= 5);
        assert_eq!(plan.measures, super::Measure::ALL);
    }

    #[test]
    fn only_what_is_named_is_measured() {
        let plan = plan("bench --quick --only tcp,wire,plain,vxlan");
        assert_eq!(measures(&plan), ["tcp-1", "tcp-4", "tcp-16"]);
        let cells: Vec<_> =
            plan.cells.iter().map(|(underlay, it)| format!("{} {it}", underlay.id())).collect();
        assert_eq!(cells, ["wire plain", "wire vxlan"]);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let arguments = Arguments::try_parse_from(["bench", "--only", "tcp,wires"]).unwrap();
        assert!(Plan::new(&arguments).unwrap_err().to_string().contains("wires"));
    }
}
