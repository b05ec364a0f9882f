//! An object whose blocks leave a mark when they run: for each one a byte of a section that becomes a map.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use object::build::elf::{Builder, Relocation, Section, SectionData, SectionId, SymbolId};
use object::elf;

use super::blocks::{Block, Code, Function, needs, target};
use super::instruction::{Callee, Flow, Instruction, SIZE};

/// The section of the marks, and the map that a loader makes of it.
pub(super) const MARKS: &str = ".data.reached";

/// So many at most: the value of a map has a size that its reader knows.
const MARKS_MAX: usize = 16_384;

/// The relocation of a load of 64 bits.
const R_BPF_64_64: u32 = 1;

/// What is left out: it tells of places that are others then.
const LEFT_OUT: [&str; 4] = [".debug", ".rel.debug", ".BTF", ".rel.BTF"];

/// A block of the object that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of its section.
    pub(super) section: String,
    /// Bytes in there.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Whether it leaves a mark: where every register is needed all the time, there is no way to.
    pub(super) is_marked: bool,
}

/// An object that marks, and what each mark is of.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) object: Vec<u8>,
    /// By the number of their mark.
    pub(super) places: Vec<Place>,
}

/// A section of code.
struct Part {
    id: SectionId,
    name: String,
    functions: BTreeSet<usize>,
    /// Of other places, by where they are used.
    relocations: BTreeMap<usize, Relocation>,
}

pub(super) fn probe(object: &[u8]) -> Result<Probed> {
    let mut builder = Builder::read(object)?;
    let (mut parts, mut code) = (BTreeMap::new(), BTreeMap::new());
    for section in builder.sections.iter().filter(|section| is_code(section)) {
        let name = section.name.to_string();
        let SectionData::Data(bytes) = &section.data else { bail!("{name} has no data") };
        let read = Code::read(bytes).with_context(|| format!("read the code of section {name}"))?;
        code.insert(parts.len(), read);
        let functions = functions(&builder, section.id());
        let relocations = relocations(&builder, section.id());
        ensure!(!relocations.is_empty(), "section {name} has no relocations, which marks need");
        parts.insert(parts.len(), Part { id: section.id(), name, functions, relocations });
    }
    let callees = callees(&builder, &parts, &code)?;
    let needed = needs(&code, |section, at| callees.get(&(section, at)).map(|call| call.function));

    let marks = marks(&mut builder);
    let mut places = Vec::new();
    let mut moved = BTreeMap::new();
    for (number, part) in &parts {
        let blocks = code[number].blocks(&part.functions, &needed[number]);
        let first = places.len();
        places.extend(blocks.iter().map(|block| Place {
            section: part.name.clone(),
            start: (block.start * SIZE) as u64,
            end: (block.end * SIZE) as u64,
            is_marked: block.spare.is_some(),
        }));
        moved.insert(*number, Moved::new(&code[number], &blocks, first));
    }
    for (number, part) in &parts {
        let rewrite = Rewrite { code: &code, moved: &moved, callees: &callees, number: *number };
        let bytes = rewrite.bytes().with_context(|| format!("rewrite section {}", part.name))?;
        let moved = &moved[number];
        builder.sections.get_mut(part.id).data = SectionData::Data(bytes.into());
        move_symbols(&mut builder, part.id, moved);
        move_relocations(&mut builder, part.id, moved, marks);
    }
    ensure!(places.len() <= MARKS_MAX, "there are {} blocks, and {MARKS_MAX} marks", places.len());
    finish(&mut builder);
    let mut object = Vec::new();
    builder.write(&mut object)?;
    Ok(Probed { object, places })
}

fn is_code(section: &Section<'_>) -> bool {
    section.sh_flags & u64::from(elf::SHF_EXECINSTR) != 0
        && matches!(&section.data, SectionData::Data(data) if !data.is_empty())
}

fn functions(builder: &Builder<'_>, section: SectionId) -> BTreeSet<usize> {
    let symbols = builder.symbols.iter();
    let functions =
        symbols.filter(|symbol| symbol.section == Some(section) && symbol.st_type() == elf::STT_FUNC);
    functions.map(|symbol| place(symbol.st_value)).collect()
}

fn relocations(builder: &Builder<'_>, of: SectionId) -> BTreeMap<usize, Relocation> {
    let sections = builder.sections.iter().filter(|section| section.sh_info_section == Some(of));
    let all = sections.filter_map(|section| match &section.data {
        SectionData::Relocation(all) => Some(all),
        _ => None,
    });
    all.flatten().map(|relocation| (place(relocation.r_offset), *relocation)).collect()
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX) / SIZE
}

/// A call of a function of the object.
#[derive(Debug, Clone, Copy)]
struct Call {
    function: Function,
    way: Way,
}

/// How a call says what it calls.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By a symbol.
    Name,
    /// By its place in a section.
    Section,
    /// By the distance.
    Distance,
}

/// By section and place.
type Calls = BTreeMap<(usize, usize), Call>;

/// Which function each call leads to.
fn callees(
    builder: &Builder<'_>,
    parts: &BTreeMap<usize, Part>,
    code: &BTreeMap<usize, Code>,
) -> Result<Calls> {
    let mut callees = BTreeMap::new();
    for (number, part) in parts {
        let calls = code[number].instructions.iter();
        for (at, call) in calls.filter(|(_, one)| one.callee() == Some(Callee::Function)) {
            let immediate = isize::try_from(call.immediate)?;
            let (way, function) = match part.relocations.get(at).and_then(|relocation| relocation.symbol) {
                Some(symbol) => {
                    let symbol = builder.symbols.get(symbol);
                    let section = parts.iter().find(|(_, part)| Some(part.id) == symbol.section);
                    let (section, _) =
                        section.with_context(|| format!("{} is called, and is no code", symbol.name))?;
                    let start = place(symbol.st_value);
                    if symbol.st_type() == elf::STT_SECTION {
                        (Way::Section, (*section, (start + 1).wrapping_add_signed(immediate)))
                    } else {
                        (Way::Name, (*section, start))
                    }
                }
                None => (Way::Distance, (*number, (at + 1).wrapping_add_signed(immediate))),
            };
            ensure!(
                parts[&function.0].functions.contains(&function.1),
                "a call at {:#x} of {} leads into the middle of a function",
                at * SIZE,
                part.name
            );
            callees.insert((*number, *at), Call { function, way });
        }
    }
    Ok(callees)
}

/// Makes the section of the marks, and the symbol by which code finds it.
fn marks(builder: &mut Builder<'_>) -> SymbolId {
    let section = builder.sections.add();
    section.name = MARKS.into();
    section.sh_type = elf::SHT_PROGBITS;
    section.sh_flags = u64::from(elf::SHF_ALLOC | elf::SHF_WRITE);
    section.sh_addralign = 8;
    let id = section.id();
    let symbol = builder.symbols.add();
    symbol.section = Some(id);
    symbol.set_st_info(elf::STB_LOCAL, elf::STT_SECTION);
    symbol.id()
}

/// Where everything of a section has moved to.
struct Moved {
    /// By its place before, that of each instruction.
    at: BTreeMap<usize, usize>,
    /// That of what comes first when one jumps there: the mark, if there is one.
    start: BTreeMap<usize, usize>,
    end: usize,
    /// Where marks are made: by the place before, the number and the register.
    marks: BTreeMap<usize, (usize, u8)>,
}

/// Instructions of a mark.
const MARK: usize = 3;

impl Moved {
    /// `first`: the number of the first block's mark.
    fn new(code: &Code, blocks: &[Block], first: usize) -> Self {
        let marks: BTreeMap<_, _> = blocks
            .iter()
            .enumerate()
            .filter_map(|(number, block)| {
                let (at, register) = block.spare?;
                Some((at, (first + number, register)))
            })
            .collect();
        let mut moved = Self { at: BTreeMap::new(), start: BTreeMap::new(), end: 0, marks };
        let mut shift = 0;
        for at in code.instructions.keys() {
            moved.start.insert(*at, at + shift);
            if moved.marks.contains_key(at) {
                shift += MARK;
            }
            moved.at.insert(*at, at + shift);
        }
        moved.end = code.end + shift;
        moved
    }

    /// Of the beginning of a function, or the end of one.
    fn bound(&self, at: usize) -> usize {
        self.start.get(&at).copied().unwrap_or(self.end)
    }
}

struct Rewrite<'a> {
    code: &'a BTreeMap<usize, Code>,
    moved: &'a BTreeMap<usize, Moved>,
    callees: &'a Calls,
    /// Of the section.
    number: usize,
}

impl Rewrite<'_> {
    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let moved = &self.moved[&self.number];
        let instructions = &self.code[&self.number].instructions;
        for (at, instruction) in instructions {
            if let Some((number, register)) = moved.marks.get(at) {
                let [first, second] = Instruction::point(*register, i32::try_from(*number)?);
                for one in [first, second, Instruction::store_one(*register)] {
                    bytes.extend(one.bytes());
                }
            }
            bytes.extend(self.instruction(*at, *instruction)?.bytes());
            bytes.extend(self.code[&self.number].halves.get(at).into_iter().flatten());
        }
        Ok(bytes)
    }

    /// The same with the distances that it has now.
    fn instruction(&self, at: usize, mut of: Instruction) -> Result<Instruction> {
        let moved = &self.moved[&self.number];
        let here = i64::try_from(moved.at[&at])? + 1;
        if let Flow::Jump(distance) | Flow::Branch(distance) = of.flow() {
            let there = moved.start.get(&target(at, distance)).context("a jump leads nowhere")?;
            of.offset = i16::try_from(i64::try_from(*there)? - here).context("a jump is too far now")?;
        }
        if let Some(Call { function: (section, function), way }) = self.callees.get(&(self.number, at)) {
            let there = i64::try_from(self.moved[section].bound(*function))?;
            of.immediate = match way {
                Way::Name => of.immediate,
                Way::Section => i32::try_from(there - 1)?,
                Way::Distance => i32::try_from(there - here)?,
            };
        }
        Ok(of)
    }
}

fn move_symbols(builder: &mut Builder<'_>, section: SectionId, moved: &Moved) {
    for symbol in builder.symbols.iter_mut().filter(|symbol| symbol.section == Some(section)) {
        if symbol.st_type() == elf::STT_SECTION {
            continue;
        }
        let (start, end) = (place(symbol.st_value), place(symbol.st_value + symbol.st_size));
        let (start, end) = (moved.bound(start), moved.bound(end));
        symbol.st_value = (start * SIZE) as u64;
        symbol.st_size = ((end - start) * SIZE) as u64;
    }
}

fn move_relocations(builder: &mut Builder<'_>, of: SectionId, moved: &Moved, marks: SymbolId) {
    for section in builder.sections.iter_mut().filter(|section| section.sh_info_section == Some(of)) {
        let SectionData::Relocation(all) = &mut section.data else { continue };
        for relocation in all.iter_mut() {
            relocation.r_offset = (moved.at[&place(relocation.r_offset)] * SIZE) as u64;
        }
        all.extend(moved.marks.keys().map(|at| Relocation {
            r_offset: (moved.start[at] * SIZE) as u64,
            symbol: Some(marks),
            r_type: R_BPF_64_64,
            r_addend: 0,
        }));
    }
}

/// Leaves out what is wrong now, and puts the rest where it fits.
fn finish(builder: &mut Builder<'_>) {
    // LLVM has the names of sections among those of symbols; they are written apart.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut end = builder.file_header_size() as u64;
    for section in builder.sections.iter_mut() {
        let name = section.name.to_string();
        if LEFT_OUT.iter().any(|prefix| name.starts_with(prefix)) {
            section.delete = true;
            continue;
        }
        if name == MARKS {
            section.data = SectionData::Data(vec![0; MARKS_MAX].into());
        }
        if let (true, SectionData::Data(data)) = (section.is_alloc(), &section.data) {
            section.sh_offset = end.next_multiple_of(section.sh_addralign.max(1));
            end = section.sh_offset + data.len() as u64;
        }
    }
    builder.delete_orphans();
}
