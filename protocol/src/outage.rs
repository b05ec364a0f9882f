//! What a service asks for when the machine that runs it is not heard of any more: two keys of Hypha's in its description.
//! Others keep them and do as they always do.

use std::time::Duration;

use serde_json::Value;

use crate::sla::Microservice;

/// SLA key: `keep`, or `replace_after` and a time, such as `replace_after 90s`.
pub const ON_DISCONNECT: &str = "on_disconnect";
/// SLA key: `newest` or `original`.
pub const RECONCILE: &str = "reconcile";

/// Shorter, and a report that comes late would move instances.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// When an instance is given up whose worker, or cluster, has fallen silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// As whoever looks after it was told to at its start.
    #[default]
    Usual,
    /// Never: it waits there until it is heard of again.
    Keep,
    /// After so long a silence.
    ReplaceAfter(Duration),
}

/// Which of two goes on when one that was replaced turns out to have been there all the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reconcile {
    /// The one that took its place.
    #[default]
    Newest,
    Original,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outage {
    pub on_disconnect: OnDisconnect,
    pub reconcile: Reconcile,
}

/// What is wrong with the value of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {expected}")]
pub struct InvalidOutage {
    pub key: &'static str,
    pub expected: &'static str,
}

impl OnDisconnect {
    /// How long a silence is borne. `None`: any.
    #[must_use]
    pub fn patience(self, usual: Duration) -> Option<Duration> {
        match self {
            Self::Usual => Some(usual),
            Self::Keep => None,
            Self::ReplaceAfter(time) => Some(time),
        }
    }
}

impl Outage {
    /// # Errors
    /// When one of the keys has a value that makes no sense.
    pub fn read(on_disconnect: Option<&Value>, reconcile: Option<&Value>) -> Result<Self, InvalidOutage> {
        let invalid = InvalidOutage {
            key: ON_DISCONNECT,
            expected: "expected \"keep\", or \"replace_after\" and 2s to 30d, such as \"replace_after 90s\"",
        };
        let on_disconnect = match on_disconnect {
            None | Some(Value::Null) => OnDisconnect::Usual,
            Some(value) => value.as_str().and_then(on_silence).ok_or(invalid)?,
        };
        let reconcile = match reconcile {
            None | Some(Value::Null) => Reconcile::Newest,
            Some(value) => match value.as_str() {
                Some("newest") => Reconcile::Newest,
                Some("original") => Reconcile::Original,
                _ => {
                    let expected = "expected \"newest\" or \"original\"";
                    return Err(InvalidOutage { key: RECONCILE, expected });
                }
            },
        };
        Ok(Self { on_disconnect, reconcile })
    }

    /// What makes no sense counts as not there; in a checked SLA all does.
    #[must_use]
    pub fn of(sla: &Microservice) -> Self {
        Self::read(sla.extra.get(ON_DISCONNECT), sla.extra.get(RECONCILE)).unwrap_or_default()
    }
}

fn on_silence(text: &str) -> Option<OnDisconnect> {
    if text.trim() == "keep" {
        return Some(OnDisconnect::Keep);
    }
    let time = text.trim().strip_prefix("replace_after")?;
    let time = duration(time.strip_prefix([' ', ':', '='])?.trim())?;
    (SHORTEST..=LONGEST).contains(&time).then_some(OnDisconnect::ReplaceAfter(time))
}

/// A whole number with its unit, one of `s`, `m`, `h`, `d`.
fn duration(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|sign: char| sign.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let number: u64 = number.trim_end().parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{InvalidOutage, OnDisconnect, Outage, Reconcile};

    fn read(on_disconnect: &Value) -> Result<OnDisconnect, InvalidOutage> {
        Outage::read(Some(on_disconnect), None).map(|outage| outage.on_disconnect)
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let after = |seconds| OnDisconnect::ReplaceAfter(Duration::from_secs(seconds));
        for (text, expected) in [
            ("keep", OnDisconnect::Keep),
            ("replace_after 90s", after(90)),
            ("replace_after: 10 m", after(600)),
            ("replace_after 2h", after(7200)),
            ("replace_after 30d", after(30 * 86_400)),
        ] {
            assert_eq!(read(&json!(text)), Ok(expected), "{text}");
        }
        assert_eq!(read(&json!(null)), Ok(OnDisconnect::Usual));
        let original = json!("original");
        assert_eq!(Outage::read(None, Some(&original)).unwrap().reconcile, Reconcile::Original);
        assert_eq!(Outage::read(None, None), Ok(Outage::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for value in [
            json!("replace"),
            json!("replace_after"),
            json!("replace_after 90"),
            json!("replace_after90s"),
            json!("replace_after 1s"),
            json!("replace_after 31d"),
            json!("replace_after 18446744073709551615d"),
            json!("replace_after -5s"),
            json!("replace_after 5 fortnights"),
            json!(90),
        ] {
            let refused = read(&value).expect_err(&value.to_string());
            assert!(refused.to_string().starts_with("on_disconnect: expected \"keep\""), "{refused}");
        }
        assert_eq!(Outage::read(None, Some(&json!("oldest"))).unwrap_err().key, "reconcile");
    }

    #[test]
    fn patience_is_what_the_service_says_before_what_is_usual() {
        let usual = Duration::from_secs(30);
        assert_eq!(OnDisconnect::Usual.patience(usual), Some(usual));
        assert_eq!(OnDisconnect::Keep.patience(usual), None);
        let long = Duration::from_secs(300);
        assert_eq!(OnDisconnect::ReplaceAfter(long).patience(usual), Some(long));
    }
}
