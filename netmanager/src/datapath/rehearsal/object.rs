//! The object with its tables' definitions changed: none is pinned by its name.

use object::{Object, ObjectSection, ObjectSymbol};

use crate::datapath::DatapathError;

/// Where the definitions are.
const SECTION: &str = "maps";
/// A definition is a row of 32-bit words: type, key size, value size, capacity, flags, id, pinning.
const PINNING: usize = 6 * 4;

/// The same object, but a table is only shared by whoever is given its path.
pub(super) fn without_pins(object: &[u8]) -> Result<Vec<u8>, DatapathError> {
    let mut bytes = object.to_vec();
    for (_, at) in definitions(object)? {
        let word = bytes.get_mut(at + PINNING..at + PINNING + 4).ok_or(DatapathError::Definitions)?;
        word.fill(0);
    }
    Ok(bytes)
}

/// The tables that it defines.
#[cfg(test)]
pub(super) fn tables(object: &[u8]) -> Result<Vec<String>, DatapathError> {
    Ok(definitions(object)?.into_iter().map(|(name, _)| name).collect())
}

/// Each table's name, and where its definition begins in the file.
fn definitions(object: &[u8]) -> Result<Vec<(String, usize)>, DatapathError> {
    read(object).ok_or(DatapathError::Definitions)
}

fn read(bytes: &[u8]) -> Option<Vec<(String, usize)>> {
    let file = object::File::parse(bytes).ok()?;
    let section = file.section_by_name(SECTION)?;
    let (start, _) = section.file_range()?;
    file.symbols()
        .filter(|symbol| symbol.section_index() == Some(section.index()) && symbol.size() > 0)
        .map(|symbol| {
            let at = usize::try_from(start + symbol.address()).ok()?;
            Some((symbol.name().ok()?.to_owned(), at))
        })
        .collect()
}
