//! Where this node is among others, by round trips to a few of them: Vivaldi (Dabek, Cox, Kaashoek, Morris: "Vivaldi: a
//! decentralized network coordinate system", SIGCOMM 2004). Pure.
//!
//! Between two nodes there is a spring as long as their round trip. Each measurement moves this node along its spring, by a
//! part that is the larger the surer the other one is of its place and the less sure this one is of its own. Round trips are
//! then foreseen between nodes that have never measured each other.

use protocol::rtt::Coordinate;

/// By which part of its spring a node moves at most, and by which part its error follows that of a measurement (`c_c` and
/// `c_e` of the paper).
const STEP: f64 = 0.25;
const ERROR_STEP: f64 = 0.25;
/// Of a shorter round trip, chance is a large part: its relative error is taken of this many milliseconds.
const SHORTEST: f64 = 2.0;
/// Heights are never less, so that they can grow again: milliseconds.
const HEIGHT_MIN: f64 = 0.01;
/// Longer round trips are believed of nobody: milliseconds.
const LONGEST: f64 = 5000.0;
/// What one measurement moves a node at most, whoever has lied about his place: milliseconds.
const LEAP: f64 = 25.0;
/// The error that nobody is below, as the errors of two are divided by each other.
const ERROR_MIN: f64 = 0.05;

/// This node's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vivaldi {
    at: Coordinate,
}

impl Default for Vivaldi {
    fn default() -> Self {
        Self { at: Coordinate::UNKNOWN }
    }
}

impl Vivaldi {
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        self.at
    }

    /// A round trip to a node that is `there` took so many milliseconds. What cannot be is ignored. `turn`, from 0 to 1, says
    /// in which direction two part that are at the same place: any other one each time.
    pub fn observe(&mut self, there: &Coordinate, milliseconds: f64, turn: f64) {
        if !(0.0..=LONGEST).contains(&milliseconds) || !turn.is_finite() {
            return;
        }
        let (own, other) = (self.at.error().max(ERROR_MIN), there.error().max(ERROR_MIN));
        let foreseen = self.at.milliseconds_to(there);
        let weight = own / (own + other);
        let wrong = ((foreseen - milliseconds).abs() / milliseconds.max(SHORTEST)).min(1.0);
        let error = wrong.mul_add(ERROR_STEP * weight, own * (1.0 - ERROR_STEP * weight));
        let force = (STEP * weight * (milliseconds - foreseen)).clamp(-LEAP, LEAP);
        let [(x, y), (other_x, other_y)] = [self.at.point(), there.point()].map(|[x, y]| (x, y));
        let (east, north) = (x - other_x, y - other_y);
        let apart = east.hypot(north);
        let (heights, turn) = (self.at.height() + there.height(), turn * std::f64::consts::TAU);
        // The direction from there to here, as long as the foreseen round trip.
        let (east, north) =
            if apart > f64::EPSILON { (east / foreseen, north / foreseen) } else { (turn.cos(), turn.sin()) };
        let rise = if foreseen > f64::EPSILON { heights / foreseen } else { 0.0 };
        let height = force.mul_add(rise, self.at.height()).max(HEIGHT_MIN);
        // Beyond all bounds is nobody.
        if let Ok(moved) = Coordinate::new([force.mul_add(east, x), force.mul_add(north, y), height, error]) {
            self.at = moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::rtt::Coordinate;
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::{LEAP, Vivaldi};

    /// Nodes at places of a map, each with an access link of its own, in milliseconds.
    fn matrix(places: &[(f64, f64, f64)]) -> Vec<Vec<f64>> {
        let rtt = |(i, a): (usize, &(f64, f64, f64)), (j, b): (usize, &(f64, f64, f64))| {
            if i == j { 0.0 } else { (a.0 - b.0).hypot(a.1 - b.1) + a.2 + b.2 }
        };
        let row = |a| places.iter().enumerate().map(|b| rtt(a, b)).collect();
        places.iter().enumerate().map(row).collect()
    }

    /// Each node measures the four nearest and four by chance, as clusters name them, with a jitter of a tenth, and hears of
    /// their places only now and then.
    fn converge(matrix: &[Vec<f64>], dice: &mut StdRng) -> Vec<Coordinate> {
        let count = matrix.len();
        let mut nodes = vec![Vivaldi::default(); count];
        let mut peers = Vec::new();
        for (node, row) in matrix.iter().enumerate() {
            let mut others: Vec<usize> = (0..count).filter(|other| *other != node).collect();
            others.sort_by(|a, b| row[*a].total_cmp(&row[*b]));
            let by_chance = (0..4).map(|_| others[dice.random_range(0..others.len())]);
            peers.push(others.iter().copied().take(4).chain(by_chance).collect::<Vec<_>>());
        }
        for _ in 0..60 {
            let told: Vec<_> = nodes.iter().map(Vivaldi::coordinate).collect();
            for node in 0..count {
                for peer in peers[node].iter().cycle().take(2 * peers[node].len()) {
                    let rtt = matrix[node][*peer] * (0.95 + 0.1 * dice.random::<f64>());
                    nodes[node].observe(&told[*peer], rtt, dice.random::<f64>());
                }
            }
        }
        nodes.iter().map(Vivaldi::coordinate).collect()
    }

    /// By which part of it each round trip is foreseen wrong, the least wrong first.
    fn errors(matrix: &[Vec<f64>], at: &[Coordinate]) -> Vec<f64> {
        let pairs = (0..at.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let wrong =
            pairs.map(|(i, j)| (at[i].milliseconds_to(&at[j]) - matrix[i][j]).abs() / matrix[i][j].max(2.0));
        let mut errors: Vec<_> = wrong.collect();
        errors.sort_by(f64::total_cmp);
        errors
    }

    /// By which part a round trip is foreseen wrong: usually, and of nine in ten at most.
    fn foreseen(places: &[(f64, f64, f64)], seed: u64) -> (f64, f64) {
        let matrix = matrix(places);
        let at = converge(&matrix, &mut StdRng::seed_from_u64(seed));
        let errors = errors(&matrix, &at);
        (errors[errors.len() / 2], errors[errors.len() * 9 / 10])
    }

    #[test]
    fn in_most_networks_nine_of_ten_round_trips_are_foreseen_to_a_tenth() {
        let mut of_networks: Vec<_> = (0..31)
            .map(|seed| {
                let mut dice = StdRng::seed_from_u64(seed);
                let mut roll = |most: f64| dice.random::<f64>() * most;
                let places: Vec<_> = (0..30).map(|_| (roll(80.0), roll(80.0), 0.1 + roll(8.0))).collect();
                foreseen(&places, seed).1
            })
            .collect();
        of_networks.sort_by(f64::total_cmp);
        assert!(of_networks[15] < 0.1, "{of_networks:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn round_trips_that_nobody_measured_are_foreseen(
            places in prop::collection::vec((0.0..80.0, 0.0..80.0, 0.1..8.0), 16..40),
            seed in any::<u64>(),
        ) {
            let (median, most) = foreseen(&places, seed);
            prop_assert!(median < 0.25 && most < 0.75, "median {median}, of nine in ten at most {most}");
        }

        #[test]
        fn nothing_that_is_told_makes_a_place_impossible(
            told in prop::collection::vec((prop::array::uniform4(any::<f64>()), any::<f64>(), any::<f64>()), 0..50),
        ) {
            let mut node = Vivaldi::default();
            for (numbers, rtt, turn) in told {
                let there = Coordinate::new(numbers).unwrap_or(Coordinate::UNKNOWN);
                node.observe(&there, rtt, turn);
                node.observe(&there, rtt.abs() % 6000.0, turn);
                prop_assert!(Coordinate::new(node.coordinate().into()).is_ok(), "{node:?}");
            }
        }
    }

    #[test]
    fn machines_of_one_room_are_sure_to_be_near_each_other() {
        let mut dice = StdRng::seed_from_u64(1);
        let room: Vec<Vec<f64>> = (0..12)
            .map(|i| (0..12).map(|j| if i == j { 0.0 } else { 0.2 + 0.4 * dice.random::<f64>() }).collect())
            .collect();
        let at = converge(&room, &mut dice);
        for (i, one) in at.iter().enumerate() {
            assert!(one.error() < 0.3, "{one:?}");
            assert!(at[..i].iter().all(|other| one.milliseconds_to(other) < 1.5), "{at:?}");
        }
    }

    #[test]
    fn one_measurement_moves_a_node_a_little_only() {
        let liar = Coordinate::new([9000.0, -9000.0, 0.0, 0.0]).unwrap();
        for milliseconds in [0.0, 4000.0] {
            let mut node = Vivaldi::default();
            node.observe(&liar, milliseconds, 0.5);
            let moved = node.coordinate().moved_from(&Vivaldi::default().coordinate());
            assert!(moved <= 2.0 * LEAP, "{moved} ms");
        }
    }
}
