//! The code of a section as blocks: stretches of instructions of which either all run or none. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::instruction::{Callee, Flow, Instruction, Registers, SIZE, arity};

/// The code of one section.
#[derive(Debug)]
pub(super) struct Code {
    /// By their place, in units of [`SIZE`]; the second half of a long one has none.
    pub(super) instructions: BTreeMap<usize, Instruction>,
    /// The second halves of the long ones, by the place of the first.
    pub(super) halves: BTreeMap<usize, [u8; SIZE]>,
    /// Where it ends.
    pub(super) end: usize,
}

/// What other parts of an object a call may lead to: section and place.
pub(super) type Function = (usize, usize);

/// A block, and where in it which register can be overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Nothing: every register is needed all the time.
    pub(super) spare: Option<(usize, u8)>,
}

impl Code {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let (words, []) = bytes.as_chunks::<SIZE>() else { anyhow::bail!("it ends within an instruction") };
        let (mut instructions, mut halves) = (BTreeMap::new(), BTreeMap::new());
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let instruction = Instruction::read(*word).with_context(|| format!("at {:#x}", at * SIZE))?;
            instructions.insert(at, instruction);
            at += 1;
            if instruction.is_long() {
                halves.insert(at - 1, *words.get(at).context("it ends within a long instruction")?);
                at += 1;
            }
        }
        Ok(Self { instructions, halves, end: words.len() })
    }

    /// Where the instruction at `at` may lead to.
    fn successors(&self, at: usize) -> Vec<usize> {
        let Some(instruction) = self.instructions.get(&at) else { return Vec::new() };
        let next = at + if instruction.is_long() { 2 } else { 1 };
        match instruction.flow() {
            Flow::Next => vec![next],
            Flow::Jump(distance) => vec![target(at, distance)],
            Flow::Branch(distance) => vec![next, target(at, distance)],
            Flow::End => Vec::new(),
        }
    }

    /// Where blocks begin, if functions do at `functions`.
    fn leaders(&self, functions: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut leaders = functions.clone();
        for (at, instruction) in &self.instructions {
            match instruction.flow() {
                Flow::Next => {}
                Flow::Jump(_) | Flow::Branch(_) | Flow::End => {
                    leaders.extend(self.successors(*at));
                    leaders.insert(at + 1);
                }
            }
        }
        leaders.retain(|leader| self.instructions.contains_key(leader));
        leaders
    }

    /// What is needed before each instruction. `arguments` tells what a call at a place needs.
    pub(super) fn needed(&self, arguments: impl Fn(usize) -> Registers) -> BTreeMap<usize, Registers> {
        let mut needed: BTreeMap<usize, Registers> = BTreeMap::new();
        loop {
            let mut is_stable = true;
            for (at, instruction) in self.instructions.iter().rev() {
                let after = self.successors(*at).into_iter();
                let after = after.filter_map(|next| needed.get(&next));
                let after = after.fold(Registers::default(), |sum, one| sum.and(*one));
                let (reads, writes) = instruction.touches();
                let called =
                    if instruction.callee().is_some() { arguments(*at) } else { Registers::default() };
                let before = after.without(writes).and(reads).and(called);
                if needed.insert(*at, before) != Some(before) {
                    is_stable = false;
                }
            }
            if is_stable {
                return needed;
            }
        }
    }

    /// Its blocks, from what is needed where.
    pub(super) fn blocks(
        &self,
        functions: &BTreeSet<usize>,
        needed: &BTreeMap<usize, Registers>,
    ) -> Vec<Block> {
        let leaders: Vec<_> = self.leaders(functions).into_iter().collect();
        let ends = leaders.iter().skip(1).copied().chain([self.end]);
        let block = |(start, end): (usize, usize)| {
            let spare = self.instructions.range(start..end).find_map(|(at, _)| {
                let needed = needed.get(at).copied().unwrap_or(Registers::ARGUMENTS);
                Some((*at, needed.missing()?))
            });
            Block { start, end, spare }
        };
        leaders.iter().copied().zip(ends).map(block).collect()
    }
}

/// The place that a jump leads to.
pub(super) fn target(at: usize, distance: i16) -> usize {
    (at + 1).wrapping_add_signed(isize::from(distance))
}

/// What the call at each place of each section needs, `sections` being their code and `callee` what is called.
pub(super) fn needs(
    sections: &BTreeMap<usize, Code>,
    callee: impl Fn(usize, usize) -> Option<Function>,
) -> BTreeMap<usize, BTreeMap<usize, Registers>> {
    // What functions need is found by what those need that they call.
    let mut of_functions: BTreeMap<Function, Registers> = BTreeMap::new();
    loop {
        let mut is_stable = true;
        let mut needed = BTreeMap::new();
        for (section, code) in sections {
            let arguments = |at: usize| match code.instructions[&at].callee() {
                Some(Callee::Helper(number)) => Registers::arguments(arity(number)),
                Some(Callee::Function) => callee(*section, at).map_or(Registers::ARGUMENTS, |function| {
                    of_functions.get(&function).copied().unwrap_or_default()
                }),
                None => Registers::default(),
            };
            needed.insert(*section, code.needed(arguments));
        }
        let all = sections
            .iter()
            .flat_map(|(section, code)| code.instructions.keys().filter_map(|at| callee(*section, *at)));
        for function @ (section, at) in all.collect::<BTreeSet<_>>() {
            let entry = needed.get(&section).and_then(|of: &BTreeMap<usize, Registers>| of.get(&at));
            let entry = entry.map_or(Registers::ARGUMENTS, |entry| entry.common(Registers::ARGUMENTS));
            if of_functions.insert(function, entry) != Some(entry) {
                is_stable = false;
            }
        }
        if is_stable {
            return needed;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Block, Code, needs};
    use crate::coverage::instruction::Instruction;

    /// 0: r6 = r1; 1: if r6 == 0 goto 4; 2: call function at 6; 3: goto 5; 4: r0 = 1; 5: exit; 6: r0 = r2; 7: exit
    fn code() -> Code {
        let words = [
            (0xbf, 6, 1, 0, 0),
            (0x15, 6, 0, 2, 0),
            (0x85, 0, 1, 0, 3),
            (0x05, 0, 0, 1, 0),
            (0xb7, 0, 0, 0, 1),
            (0x95, 0, 0, 0, 0),
            (0xbf, 0, 2, 0, 0),
            (0x95, 0, 0, 0, 0),
        ];
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|&(code, destination, source, offset, immediate)| {
                Instruction { code, destination, source, offset, immediate }.bytes()
            })
            .collect();
        Code::read(&bytes).unwrap()
    }

    #[test]
    fn blocks_begin_where_jumps_lead_and_after_them() {
        let code = code();
        let functions = BTreeSet::from([0, 6]);
        let sections = BTreeMap::from([(1, code)]);
        let needed = needs(&sections, |_, at| (at == 2).then_some((1, 6)));
        let blocks = sections[&1].blocks(&functions, &needed[&1]);
        let bounds: Vec<_> = blocks.iter().map(|block| (block.start, block.end)).collect();
        assert_eq!(bounds, [(0, 2), (2, 4), (4, 5), (5, 6), (6, 8)]);
        assert_eq!(blocks[0].spare, Some((0, 9)));
    }

    #[test]
    fn what_a_function_needs_is_needed_where_it_is_called() {
        let sections = BTreeMap::from([(1, code())]);
        let needed = needs(&sections, |_, at| (at == 2).then_some((1, 6)));
        let is_needed = |at: usize, register: u8| {
            let needed = needed[&1][&at];
            needed
                .without(super::Registers::arguments(register - 1))
                .common(super::Registers::arguments(register))
                != super::Registers::default()
        };
        assert!(is_needed(0, 2) && is_needed(2, 2) && is_needed(6, 2));
        assert!(!is_needed(2, 1) && !is_needed(2, 3) && !is_needed(4, 2));
    }

    #[test]
    fn a_block_without_a_spare_register_is_said_to_have_none() {
        // Writes r0 to r9 to the stack one after the other, so that each is needed until then.
        let bytes: Vec<u8> = (0..10)
            .map(|source| Instruction { code: 0x7b, destination: 10, source, offset: -8, immediate: 0 })
            .chain([Instruction { code: 0x95, destination: 0, source: 0, offset: 0, immediate: 0 }])
            .flat_map(Instruction::bytes)
            .collect();
        let code = Code::read(&bytes).unwrap();
        let needed = code.needed(|_| super::Registers::default());
        let block = code.blocks(&BTreeSet::from([0]), &needed)[0];
        assert_eq!(block, Block { start: 0, end: 11, spare: Some((2, 1)) });
    }
}
