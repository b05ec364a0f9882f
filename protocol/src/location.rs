//! Places on the Earth, as constraints and clusters name them: `48.26,11.67`, in degrees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Mean radius of the Earth (IUGG), kilometres.
const EARTH: f64 = 6371.0;

/// A point: degrees north, then degrees east. Finite, at most 90 and 180 either way. As text, `48.26,11.67`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Location {
    latitude: f64,
    longitude: f64,
}

/// Both numbers are finite, so that each place equals itself.
impl Eq for Location {}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected \"latitude,longitude\" in degrees, such as \"48.26,11.67\"")]
pub struct InvalidLocation;

impl Location {
    /// Along the surface, to about half a percent.
    #[must_use]
    pub fn kilometres_to(self, other: Self) -> f64 {
        let [north, other_north] = [self.latitude, other.latitude].map(f64::to_radians);
        let east = (other.longitude - self.longitude).to_radians();
        let half_chord = ((other_north - north) / 2.0).sin().powi(2)
            + north.cos() * other_north.cos() * (east / 2.0).sin().powi(2);
        2.0 * EARTH * half_chord.clamp(0.0, 1.0).sqrt().asin()
    }
}

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let (latitude, longitude) = text.split_once(',').ok_or(InvalidLocation)?;
        let degrees = |text: &str, most: f64| {
            let degrees = text.trim().parse::<f64>().ok().filter(|degrees| degrees.abs() <= most);
            degrees.ok_or(InvalidLocation)
        };
        Ok(Self { latitude: degrees(latitude, 90.0)?, longitude: degrees(longitude, 180.0)? })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.latitude, self.longitude)
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads a place that may be missing; what is no place is not known.
///
/// # Errors
/// When the format itself is broken.
pub fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Location>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.as_ref().and_then(serde_json::Value::as_str).and_then(|text| text.parse().ok()))
}

/// Where a cluster says that it is: `latitude,longitude`, in Oakestra's form followed by a radius, which says nothing of
/// where its workers are and is left out. `None` for free text.
#[must_use]
pub fn of_cluster(text: &str) -> Option<Location> {
    let mut parts = text.splitn(3, ',');
    let point = format!("{},{}", parts.next()?, parts.next()?);
    let radius = parts.next().is_none_or(|radius| radius.trim().parse::<f64>().is_ok());
    point.parse().ok().filter(|_| radius)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Location, of_cluster};

    fn location(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        let munich = location("48.137, 11.575");
        for (other, kilometres) in
            [("52.520,13.405", 504.0), ("48.262,11.668", 15.5), ("-33.869,151.209", 16_300.0)]
        {
            let distance = munich.kilometres_to(location(other));
            assert!((distance / kilometres - 1.0).abs() < 0.01, "{other}: {distance} km");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "here", "48.1", "91,0", "0,181", "NaN,0", "inf,0", "48.1;11.5", "48.1,11.5,3"] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cluster_may_name_a_place_with_a_radius_or_none_at_all() {
        assert_eq!(of_cluster("48.1,11.5,1000"), Some(location("48.1,11.5")));
        assert_eq!(of_cluster("48.1, 11.5"), Some(location("48.1,11.5")));
        for text in ["My Flat", "Munich, Bavaria", "48.1,11.5,large", ""] {
            assert_eq!(of_cluster(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_way_is_as_long_back_and_text_keeps_the_place(
            (a, b, c, d) in (-90.0..90.0_f64, -180.0..180.0_f64, -90.0..90.0_f64, -180.0..180.0_f64),
        ) {
            let (from, to) = (location(&format!("{a},{b}")), location(&format!("{c},{d}")));
            prop_assert_eq!(location(&from.to_string()), from);
            let there = from.kilometres_to(to);
            prop_assert!((there - to.kilometres_to(from)).abs() < 1e-6);
            prop_assert!((0.0..=20_016.0).contains(&there));
        }
    }
}
