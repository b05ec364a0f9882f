//! What the verifier has to look at, recorded so that it does not creep up: a kernel gives up at a million.

use aya::programs::SchedClassifier;
use netmanager::datapath::{FROM_CONTAINER, FROM_UPLINK};

use crate::bed::Bed;

/// Instructions that Linux 6.18 processes for each program, plus a fifth.
const BUDGET: [(&str, u32); 2] = [(FROM_CONTAINER, 39_200), (FROM_UPLINK, 14_000)];

#[test]
fn the_verifiers_work_stays_within_its_budget() {
    let mut bed = Bed::empty();
    for (name, budget) in BUDGET {
        let program: &mut SchedClassifier = bed.program(name);
        let verified = program.info().unwrap().verified_instruction_count().expect("Linux 5.16 or later");
        println!("{name}: {verified} instructions verified");
        assert!(verified <= budget, "{name}: {verified} instructions, {budget} are allowed");
    }
}
