//! The thread of the demo on the screen: numbered steps, each with the time since the beginning.

use std::fmt::Display;
use std::time::Instant;

use anyhow::{Error, Result};
use integration::interrupt;

/// What step we are at, and since when.
#[derive(Debug)]
pub(crate) struct Tour {
    start: Instant,
    number: u32,
    title: String,
}

impl Tour {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), number: 0, title: "Preparation".to_owned() }
    }

    /// Begins the next step, unless Ctrl-C was pressed.
    pub(crate) fn step(&mut self, title: &str) -> Result<()> {
        interrupt::check()?;
        self.number += 1;
        title.clone_into(&mut self.title);
        println!("\n{:2}. {title}", self.number);
        Ok(())
    }

    /// One thing that was done or seen. Each line of a longer text is a line of its own.
    pub(crate) fn say(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("{:7.1} s  {line}", self.start.elapsed().as_secs_f32());
        }
    }

    pub(crate) fn failed(&self, error: &Error) {
        let at = format!("step {} ({})", self.number, self.title);
        if error.is::<interrupt::Interrupted>() {
            println!("\nInterrupted at {at}.");
        } else {
            println!("\nFAILED at {at}: {error:#}");
        }
    }

    pub(crate) fn close(&self) {
        println!("\nDone in {:.0} s.", self.start.elapsed().as_secs_f32());
    }
}

/// Columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".into(), "b".into()], vec!["long".into(), "c".into()]];
        assert_eq!(table(&rows), "a      b\nlong   c");
    }
}
