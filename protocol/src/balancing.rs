//! How a service's round robin address spreads connections: a key of Hypha's in its description, and in tables beside the
//! address. Others keep it and take turns.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::sla::Microservice;

/// SLA key: `round_robin` or `least_connections`.
pub const BALANCING: &str = "balancing";

/// To which instance a new connection goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balancing {
    /// To each in turn. Also what is read of anything that is not known: it is of a later version.
    #[default]
    RoundRobin,
    /// To the one to which the fewest are open from the client's node.
    LeastConnections,
}

impl<'de> Deserialize<'de> for Balancing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(Self::read(Some(&value)).unwrap_or_default())
    }
}

/// The key has another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"round_robin\" or \"least_connections\"")]
pub struct InvalidBalancing;

impl Balancing {
    /// # Errors
    /// When the value is none of the two.
    pub fn read(value: Option<&Value>) -> Result<Self, InvalidBalancing> {
        match value {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(value) => match value.as_str() {
                Some("round_robin") => Ok(Self::RoundRobin),
                Some("least_connections") => Ok(Self::LeastConnections),
                _ => Err(InvalidBalancing),
            },
        }
    }

    /// What a service asks for; what makes no sense is nothing.
    #[must_use]
    pub fn of(service: &Microservice) -> Self {
        Self::read(service.extra.get(BALANCING)).unwrap_or_default()
    }

    #[must_use]
    pub fn is_round_robin(&self) -> bool {
        *self == Self::RoundRobin
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Balancing, InvalidBalancing};
    use crate::net::ServiceIp;

    #[test]
    fn what_a_service_asks_for_is_one_of_two_words_or_nothing() {
        for (value, read) in [
            (json!("least_connections"), Ok(Balancing::LeastConnections)),
            (json!("round_robin"), Ok(Balancing::RoundRobin)),
            (json!(null), Ok(Balancing::RoundRobin)),
            (json!("least"), Err(InvalidBalancing)),
            (json!(3), Err(InvalidBalancing)),
        ] {
            assert_eq!(Balancing::read(Some(&value)), read, "{value}");
        }
        assert_eq!(Balancing::read(None), Ok(Balancing::RoundRobin));
    }

    #[test]
    fn an_address_says_only_what_is_not_oakestras_and_takes_what_it_does_not_know_for_turns() {
        let address = |balancing: serde_json::Value| json!({"IpType": "RR", "Address": "10.30.0.1", "Address_v6": "", "balancing": balancing});
        let of = |value| serde_json::from_value::<ServiceIp>(value).unwrap();
        let least = of(address(json!("least_connections")));
        assert_eq!(least.balancing, Balancing::LeastConnections);
        assert_eq!(serde_json::to_value(least).unwrap(), address(json!("least_connections")));
        for unknown in [json!("of_next_year"), json!(1), json!({ "by": "latency" }), json!(null)] {
            let unknown = of(address(unknown));
            assert_eq!(unknown.balancing, Balancing::RoundRobin);
            assert!(serde_json::to_value(unknown).unwrap().get("balancing").is_none());
        }
    }
}
