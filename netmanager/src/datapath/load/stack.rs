//! How deep the stack of the programs becomes. The kernel that runs the tests may be more generous than older ones: those
//! round each function's part of it up to 32 bytes, newer ones to 16 where a JIT is asked for (`round_up_stack_depth` of the
//! verifier).

use std::collections::{BTreeMap, HashMap};

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolKind};

use super::OBJECT;

/// `MAX_BPF_STACK` of the kernel, for a chain of calls.
const MOST: i64 = 512;
const ROUNDED: i64 = 32;
const INSTRUCTION: usize = 8;

/// `linux/bpf.h`: classes and the register that points to the frame.
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
const FRAME: u8 = 10;
/// In a call's source register: a function of the object.
const LOCAL: u8 = 1;

type Place = (SectionIndex, u64);

#[derive(Debug, Default)]
struct Function {
    name: String,
    depth: i64,
    calls: Vec<Place>,
}

fn functions() -> HashMap<Place, Function> {
    let file = object::File::parse(OBJECT).unwrap();
    let mut functions = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let index = symbol.section_index().unwrap();
        let section = file.section_by_index(index).unwrap();
        let relocated: BTreeMap<_, _> = section
            .relocations()
            .filter_map(|(at, relocation)| match relocation.target() {
                RelocationTarget::Symbol(target) => Some((at, file.symbol_by_index(target).ok()?)),
                _ => None,
            })
            .collect();
        let start = usize::try_from(symbol.address()).unwrap();
        let code = &section.data().unwrap()[start..][..usize::try_from(symbol.size()).unwrap()];
        let mut function = Function { name: symbol.name().unwrap().to_owned(), ..Function::default() };
        // Registers that hold the frame's address.
        let mut frames = [false; 16];
        for (number, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
            let [operation, registers, offset_low, offset_high, immediate @ ..] = instruction else {
                unreachable!()
            };
            let (target, source) = (registers & 0x0f, registers >> 4);
            let offset = i64::from(i16::from_le_bytes([*offset_low, *offset_high]));
            let immediate = i64::from(i32::from_le_bytes(immediate.try_into().unwrap()));
            let reached = match (operation & 0x07, *operation) {
                (LDX, _) if source == FRAME => offset,
                (ST | STX, _) if target == FRAME => offset,
                (_, ADD) if frames[usize::from(target)] => immediate,
                _ => 0,
            };
            function.depth = function.depth.max(-reached);
            if *operation == MOVE {
                frames[usize::from(target)] = source == FRAME;
            } else if matches!(operation & 0x07, LDX | 0x04 | 0x07) {
                frames[usize::from(target)] = false;
            }
            if *operation == CALL && source == LOCAL {
                let at = (start + number * INSTRUCTION) as u64;
                let words = immediate + 1;
                function.calls.push(match relocated.get(&at) {
                    Some(symbol) => {
                        (symbol.section_index().unwrap(), symbol.address().strict_add_signed(words * 8))
                    }
                    None => (index, at.strict_add_signed(words * 8)),
                });
            }
        }
        functions.insert((index, symbol.address()), function);
    }
    functions
}

/// The deepest chain of calls that begins with this function, and how deep.
fn deepest(functions: &HashMap<Place, Function>, place: Place) -> (i64, String) {
    let function = functions.get(&place).unwrap_or_else(|| panic!("no function at {place:?}"));
    let own = (function.depth.max(1) + ROUNDED - 1) / ROUNDED * ROUNDED;
    let below = function.calls.iter().map(|callee| deepest(functions, *callee)).max();
    let (depth, names) = below.unwrap_or_default();
    (own + depth, format!("{} ({own}) {names}", function.name))
}

#[test]
fn every_chain_of_calls_fits_the_stack_of_old_kernels() {
    let functions = functions();
    let programs = functions.values().filter(|function| super::PROGRAMS.contains(&function.name.as_str()));
    assert_eq!(programs.count(), super::PROGRAMS.len());
    for place in functions.keys() {
        let (depth, chain) = deepest(&functions, *place);
        assert!(depth <= MOST, "{depth} bytes of stack: {chain}");
    }
}
