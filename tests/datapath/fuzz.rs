//! Frames of which most are broken somewhere: whatever a container sends and whatever arrives at the uplink, both
//! programs do one of a few known things to it, and do those right.

mod agree;
mod flows;
mod frame;
mod judge;
mod world;

use std::collections::BTreeMap;

use integration::fuzz::campaign;

use crate::fuzz::judge::Fate;
use crate::fuzz::world::World;

const ROUNDS: u64 = 300;
/// Frames of one round, which share the flows that they begin.
const FRAMES: usize = 40;

#[test]
fn fuzzed_frames_of_containers_are_dropped_and_counted_or_sent_on_right() {
    let mut world = World::new();
    let mut fates = Fates::default();
    let rounds = campaign(ROUNDS, |chance| {
        world.forget_packets();
        for _ in 0..FRAMES {
            let sent = frame::of_container(chance);
            let outcome = world.bed.container_sends(&sent);
            fates.add(judge::of_container(&sent, &outcome));
        }
    });
    fates.assert_all_of(rounds, &[Fate::LeftAlone, Fate::Delivered, Fate::Encapsulated]);
}

#[test]
fn fuzzed_frames_at_the_uplink_are_left_alone_or_dropped_and_counted_or_delivered_right() {
    let mut world = World::new();
    let mut fates = Fates::default();
    let rounds = campaign(ROUNDS, |chance| {
        world.forget_packets();
        for _ in 0..FRAMES {
            // Some of what arrives are answers.
            if chance.one_in(4) {
                let sent = frame::of_container(chance);
                judge::of_container(&sent, &world.bed.container_sends(&sent));
            }
            let arrived = frame::at_uplink(chance);
            let outcome = world.bed.uplink_receives(&arrived);
            fates.add(judge::at_uplink(&arrived, &outcome));
        }
    });
    fates.assert_all_of(rounds, &[Fate::LeftAlone, Fate::Delivered]);
}

/// How many frames met which fate.
#[derive(Debug, Default)]
struct Fates(BTreeMap<Fate, usize>);

impl Fates {
    fn add(&mut self, fate: Fate) {
        *self.0.entry(fate).or_default() += 1;
    }

    /// None of these is rare; otherwise the campaign does not test what it is for.
    #[track_caller]
    fn assert_all_of(&self, rounds: u64, fates: &[Fate]) {
        println!("{:?}", self.0);
        let frames: usize = self.0.values().sum();
        for fate in fates {
            let share = self.0.get(fate).copied().unwrap_or(0);
            assert!(rounds < ROUNDS || share > frames / 25, "{fate:?}: {share} of {frames} frames");
        }
    }
}
