//! How far the workers of a cluster are from each other, by the time that a packet takes there and back. Topics of Hypha's
//! own, of which nothing is said to parts of Oakestra's.
//!
//! A worker asks its cluster whom to measure ([`RttReport::asks`]), is told a handful of others ([`RttPeers`]), and from then
//! on says what it has measured and where that puts it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// The latest measurements of one peer that are told.
pub const SAMPLES_MAX: usize = 8;
/// Peers of one worker.
pub const PEERS_MAX: usize = 16;
/// No round trip on the Earth takes longer, nor is anything farther: milliseconds.
const FARTHEST: f64 = 10_000.0;

/// Where a worker is by its round trips (Vivaldi, Dabek et al. 2004): a point of a plane, and a height above it, which is the
/// part of each of its round trips that all have in common. Milliseconds, finite, at most ten seconds each; the height is
/// not negative. On the wire `[x, y, height, error]`, to a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 4]", into = "[f64; 4]")]
pub struct Coordinate {
    x: f64,
    y: f64,
    height: f64,
    error: f64,
}

/// See [`Coordinate::new`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a coordinate has four numbers of at most 10000 ms, of which the last two are not negative")]
pub struct InvalidCoordinate;

impl Coordinate {
    /// Where one is that has measured nothing.
    pub const UNKNOWN: Self = Self { x: 0.0, y: 0.0, height: 0.1, error: 1.0 };

    /// The error is relative: by which part of it an estimate may be wrong, at most 1.
    ///
    /// # Errors
    /// When a number is not finite, is beyond ten seconds, or is negative where it must not be.
    pub fn new([x, y, height, error]: [f64; 4]) -> Result<Self, InvalidCoordinate> {
        let is_near = |value: f64| value.abs() <= FARTHEST;
        if !(is_near(x) && is_near(y) && (0.0..=FARTHEST).contains(&height) && error >= 0.0) {
            return Err(InvalidCoordinate);
        }
        Ok(Self { x, y, height, error: error.min(1.0) })
    }

    /// Of the plane.
    #[must_use]
    pub fn point(&self) -> [f64; 2] {
        [self.x, self.y]
    }

    #[must_use]
    pub fn height(&self) -> f64 {
        self.height
    }

    /// 0 to 1.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.error
    }

    /// The round trip that is to be expected between the two, in milliseconds.
    #[must_use]
    pub fn milliseconds_to(&self, other: &Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y) + self.height + other.height
    }

    /// How far it is from there to here, by itself.
    #[must_use]
    pub fn moved_from(&self, earlier: &Self) -> f64 {
        (self.x - earlier.x).hypot(self.y - earlier.y) + (self.height - earlier.height).abs()
    }
}

impl TryFrom<[f64; 4]> for Coordinate {
    type Error = InvalidCoordinate;

    fn try_from(numbers: [f64; 4]) -> Result<Self, InvalidCoordinate> {
        Self::new(numbers)
    }
}

impl From<Coordinate> for [f64; 4] {
    fn from(Coordinate { x, y, height, error }: Coordinate) -> Self {
        [x, y, height, error].map(|number| (number * 1000.0).round() / 1000.0)
    }
}

/// `nodes/{id}/net/rtt`: what a worker has measured. It stands until the next one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RttReport {
    /// It has been told of no peers over this connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<Coordinate>,
    /// At most [`PEERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
}

/// The latest round trips to another worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    pub node: Id,
    /// Microseconds, the shortest first. At most [`SAMPLES_MAX`].
    pub micros: Vec<u32>,
}

/// `nodes/{id}/net/peers`: whom a worker is to measure, instead of those that it was told before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RttPeers {
    /// At most [`PEERS_MAX`].
    pub peers: Vec<RttPeer>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RttPeer {
    pub node: Id,
    pub address: IpAddr,
    /// As it last said. Nothing: it has not said yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<Coordinate>,
}

#[cfg(test)]
mod tests {
    use super::{Coordinate, RttReport};

    #[test]
    fn a_coordinate_is_written_to_a_microsecond_and_read_back() {
        let coordinate = Coordinate::new([1.234_56, -20.0, 0.5, 0.25]).unwrap();
        let text = serde_json::to_string(&coordinate).unwrap();
        assert_eq!(text, "[1.235,-20.0,0.5,0.25]");
        let read: Coordinate = serde_json::from_str(&text).unwrap();
        assert!(read.moved_from(&coordinate) < 0.001);
        assert!((coordinate.milliseconds_to(&Coordinate::UNKNOWN) - 20.638).abs() < 0.001);
    }

    #[test]
    fn what_is_no_coordinate_is_not_read() {
        for text in
            ["[0,0,-1,0]", "[0,0,0,-0.1]", "[1e5,0,0,0]", "[0,1e400,0,0]", "[0,0,0]", "[0,0,0,null]", "{}"]
        {
            assert!(serde_json::from_str::<Coordinate>(text).is_err(), "{text}");
        }
        assert!(Coordinate::new([f64::NAN, 0.0, 0.0, 0.0]).is_err());
        assert!(Coordinate::new([0.0, 0.0, 0.0, f64::NAN]).is_err());
        assert!(Coordinate::new([0.0, f64::INFINITY, 0.0, 0.0]).is_err());
        assert_eq!(Coordinate::new([0.0, 0.0, 0.0, 7.0]).unwrap().error().to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn a_report_of_nothing_is_short() {
        let asks = RttReport { asks: true, ..RttReport::default() };
        assert_eq!(serde_json::to_string(&asks).unwrap(), r#"{"asks":true}"#);
        assert_eq!(serde_json::from_str::<RttReport>("{}").unwrap(), RttReport::default());
    }
}
