//! Whatever happens, in whatever order: once it stops, everything wanted runs, in one place, and nothing else does.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use protocol::status::Status;

use super::world::World;

const WORKERS: usize = 3;

#[derive(Debug, Clone)]
enum Happening {
    Deploy,
    Undeploy(u32),
    UndeployAll,
    Disconnect(usize),
    Connect(usize),
    Fail(usize, u32),
    Lose(usize, u32),
    Deaf(usize, bool),
    Restart,
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => Just(Happening::Deploy),
        2 => (0..12_u32).prop_map(Happening::Undeploy),
        1 => Just(Happening::UndeployAll),
        2 => (0..WORKERS).prop_map(Happening::Disconnect),
        2 => (0..WORKERS).prop_map(Happening::Connect),
        2 => (0..WORKERS, 0..12_u32).prop_map(|(worker, number)| Happening::Fail(worker, number)),
        1 => (0..WORKERS, 0..12_u32).prop_map(|(worker, number)| Happening::Lose(worker, number)),
        1 => (0..WORKERS, any::<bool>()).prop_map(|(worker, deaf)| Happening::Deaf(worker, deaf)),
        1 => Just(Happening::Restart),
        5 => (1..60_u64).prop_map(Happening::Pass),
    ]
}

fn happen(world: &mut World, next: &mut u32, happening: &Happening) {
    match happening {
        Happening::Deploy => {
            world.deploy(*next);
            *next += 1;
        }
        Happening::Undeploy(number) if world.wanted().contains(number) => world.undeploy(Some(*number)),
        Happening::UndeployAll if !world.wanted().is_empty() => world.undeploy(None),
        Happening::Undeploy(_) | Happening::UndeployAll => {}
        Happening::Disconnect(worker) => world.disconnect(*worker),
        Happening::Connect(worker) => world.connect(*worker),
        Happening::Fail(worker, number) => world.fail(*worker, *number),
        Happening::Lose(worker, number) => world.lose_container(*worker, *number),
        Happening::Deaf(worker, deaf) => world.deaf(*worker, *deaf),
        Happening::Restart => world.restart(),
        Happening::Pass(seconds) => world.run(Duration::from_secs(*seconds)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn everything_wanted_runs_once_and_nothing_else(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::with_workers(3);
        let mut next = 0;
        for happening in &happenings {
            happen(&mut world, &mut next, happening);
        }
        for worker in 0..WORKERS {
            world.deaf(worker, false);
            if !world.is_connected(worker) {
                world.connect(worker);
            }
        }
        world.run(Duration::from_secs(900));

        let wanted = world.wanted();
        let mut running = BTreeSet::new();
        for worker in 0..WORKERS {
            for number in world.running(worker) {
                prop_assert!(running.insert(*number), "instance {number} runs twice");
            }
        }
        prop_assert_eq!(&running, &wanted);
        for number in &wanted {
            prop_assert_eq!(world.status(*number), Some(Status::Running), "instance {}", number);
        }
        let (told, kept) = (world.told, world.kept);
        world.run(Duration::from_secs(60));
        prop_assert_eq!((world.told, world.kept), (told, kept), "and then it is quiet");
    }
}
