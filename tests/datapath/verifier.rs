//! What the verifier has to look at, recorded so that it does not creep up: a kernel gives up at a million.

use aya::programs::ProgramInfo;

use crate::bed::Bed;

/// One line for each kernel and program. A kernel that is not in it is held to the largest number of the others.
const RECORDED: &str = include_str!("../../netmanager-ebpf/verified.txt");

/// The line by which `cargo xtask build-ebpf --record` finds what it records.
const MARK: &str = "verified:";

#[test]
fn the_verifiers_work_has_not_grown_by_over_a_fifth_of_what_is_recorded() {
    let kernel = kernel();
    let verified: Vec<_> = Bed::empty().programs().map(|(name, program)| (name, count(&program))).collect();
    for (name, instructions) in &verified {
        println!("{MARK} {kernel} {name} {instructions}");
    }
    for (name, instructions) in verified {
        let Some(recorded) = recorded(&kernel, &name) else {
            panic!("{name} is not recorded: cargo xtask build-ebpf --record");
        };
        assert!(
            instructions <= recorded + recorded / 5,
            "{name}: {instructions} instructions verified, {recorded} are recorded; if that is as it must be: \
             cargo xtask build-ebpf --record"
        );
    }
}

fn count(program: &ProgramInfo) -> u32 {
    program.verified_instruction_count().expect("Linux 5.16 or later")
}

/// Major and minor number: the verifier is the same in all of a series.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn recorded(kernel: &str, program: &str) -> Option<u32> {
    let lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
    let of_program = lines.filter_map(|line| {
        let [kernel, name, instructions] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("kernel, program, instructions: {line:?}");
        };
        (name == program).then(|| (kernel, instructions.parse::<u32>().expect("a number")))
    });
    let of_program: Vec<_> = of_program.collect();
    let of_kernel = of_program.iter().find(|(recorded, _)| *recorded == kernel);
    of_kernel
        .copied()
        .or_else(|| of_program.into_iter().max_by_key(|(_, instructions)| *instructions))
        .map(|(_, n)| n)
}
