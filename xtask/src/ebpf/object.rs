//! Reads programs and maps out of a relocatable BPF object.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// Every BPF instruction takes 8 bytes.
const INSTRUCTION: u64 = 8;

/// What a loader would find in an object, in the order of names.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) programs: Vec<Program>,
    pub(crate) maps: Vec<Map>,
}

/// A function that is an entry of its own, or is called by one (`.text`).
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) section: String,
    pub(crate) instructions: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) key: u32,
    pub(crate) value: u32,
    pub(crate) entries: u32,
}

// === impl Contents ===

impl Contents {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let file = object::File::parse(bytes)?;
        let (mut programs, mut maps) = (Vec::new(), Vec::new());
        for symbol in file.symbols() {
            let Some(section) = symbol.section_index() else { continue };
            let section = file.section_by_index(section)?;
            if section.kind() == SectionKind::Text && symbol.kind() == SymbolKind::Text {
                programs.push(Program {
                    name: symbol.name()?.to_owned(),
                    section: section.name()?.to_owned(),
                    instructions: symbol.size() / INSTRUCTION,
                });
            } else if section.name()? == "maps" && symbol.size() > 0 {
                let name = symbol.name()?;
                let definition = section
                    .data_range(symbol.address(), symbol.size())?
                    .with_context(|| format!("the definition of map {name} lies outside of its section"))?;
                let map = Map::read(name, definition)
                    .with_context(|| format!("the definition of map {name} is too short"))?;
                maps.push(map);
            }
        }
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { programs, maps })
    }
}

// === impl Map ===

impl Map {
    /// A definition is a row of 32-bit words: type, key size, value size, capacity, and more that is not shown.
    fn read(name: &str, definition: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = definition.get(index * 4..index * 4 + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            name: name.to_owned(),
            kind: kind(word(0)?),
            key: word(1)?,
            value: word(2)?,
            entries: word(3)?,
        })
    }
}

/// The name of a map type in `enum bpf_map_type` of linux/bpf.h, for the types that a data plane uses.
fn kind(number: u32) -> String {
    let name = match number {
        1 => "hash",
        2 => "array",
        3 => "prog_array",
        4 => "perf_event_array",
        5 => "percpu_hash",
        6 => "percpu_array",
        9 => "lru_hash",
        10 => "lru_percpu_hash",
        11 => "lpm_trie",
        12 => "array_of_maps",
        13 => "hash_of_maps",
        14 => "devmap",
        16 => "cpumap",
        22 => "queue",
        23 => "stack",
        25 => "devmap_hash",
        27 => "ringbuf",
        other => return format!("type {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::Map;

    #[test]
    fn a_map_is_read_from_its_definition() {
        let words: [u32; 7] = [9, 16, 24, 65_536, 0, 0, 1];
        let definition: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let expected =
            Map { name: "FLOWS".into(), kind: "lru_hash".into(), key: 16, value: 24, entries: 65_536 };
        assert_eq!(Map::read("FLOWS", &definition), Some(expected));
        assert_eq!(Map::read("FLOWS", &definition[..12]), None);
    }
}
