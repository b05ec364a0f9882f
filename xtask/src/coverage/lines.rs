//! Which line of the sources each instruction was made of, from `.BTF.ext`: Documentation/bpf/btf.rst of Linux.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};

/// A line of a file, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) file: String,
    pub(super) number: u32,
}

/// By section, the lines from each place on, in bytes.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, BTreeMap<u64, Line>>);

impl Lines {
    pub(super) fn read(object: &[u8]) -> Result<Self> {
        let file = object::File::parse(object)?;
        let data = |name: &str| -> Result<&[u8]> {
            let section =
                file.section_by_name(name).with_context(|| format!("there is no section {name}"))?;
            Ok(section.data()?)
        };
        Self::parse(Words(data(".BTF")?), Words(data(".BTF.ext")?)).context("read .BTF.ext")
    }

    fn parse(types: Words<'_>, more: Words<'_>) -> Result<Self> {
        let strings = types.after(types.word(4)?)?.after(types.word(16)?)?;
        // A header tells of functions first, then of lines, by places behind it.
        let behind = more.after(more.word(4)?)?;
        let (start, length) = (more.word(16)?, more.word(20)?);
        let info = behind.after(start)?.first(length)?;
        let size = info.word(0)?;
        ensure!(size >= 16, "a line is told of in {size} bytes");
        let mut rest = info.after(4)?;
        let mut lines = BTreeMap::new();
        while !rest.0.is_empty() {
            let (section, count) = (strings.text(rest.word(0)?)?, rest.word(4)?);
            let mut of_section = BTreeMap::new();
            for at in 0..count {
                let record = rest.after(8 + at * size)?;
                let line = Line { file: strings.text(record.word(4)?)?, number: record.word(12)? >> 10 };
                of_section.insert(u64::from(record.word(0)?), line);
            }
            lines.insert(section, of_section);
            rest = rest.after(8 + count * size)?;
        }
        Ok(Self(lines))
    }

    /// Those that a stretch of code was made of.
    pub(super) fn of(&self, section: &str, start: u64, end: u64) -> BTreeSet<&Line> {
        let Some(lines) = self.0.get(section) else { return BTreeSet::new() };
        let before = lines.range(..=start).next_back();
        let inside = lines.range(start..end);
        before.into_iter().chain(inside).map(|(_, line)| line).collect()
    }
}

/// Bytes with numbers in them, the lowest byte first.
#[derive(Debug, Clone, Copy)]
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn after(self, at: u32) -> Result<Self> {
        self.0.get(usize::try_from(at)?..).map(Self).context("it is cut off")
    }

    fn first(self, length: u32) -> Result<Self> {
        self.0.get(..usize::try_from(length)?).map(Self).context("it is cut off")
    }

    fn word(self, at: u32) -> Result<u32> {
        let bytes = self.after(at)?.0.first_chunk().context("it is cut off")?;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn text(self, at: u32) -> Result<String> {
        let text = self.after(at)?.0.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}
