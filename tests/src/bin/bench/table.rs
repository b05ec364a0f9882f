//! The summary as tables: for terminals and for Markdown.

use crate::measure::Measure;
use crate::subject::{Underlay, Variant};
use crate::summary::{Key, Spread, Summary};

/// Cells by row; the first row is the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) Vec<Vec<String>>);

impl Table {
    /// What was measured on an underlay: a column for each variant, medians with their spread, and in brackets the ratio
    /// to plain routing.
    pub(crate) fn of(summary: &Summary, underlay: Underlay) -> Self {
        let variants = summary.variants(underlay);
        let header =
            [String::new(), "unit".to_owned()].into_iter().chain(variants.iter().map(ToString::to_string));
        let mut rows = vec![header.collect::<Vec<_>>()];
        for key in summary.keys_of(underlay) {
            let mut row = vec![title(key), key.quantity.unit().to_owned()];
            row.extend(variants.iter().map(|variant| cell(summary, key, variant)));
            rows.push(row);
        }
        Self(rows)
    }

    /// With columns as wide as their widest cell.
    pub(crate) fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let lines = self.0.iter().map(|row| {
            let cells = row.iter().enumerate().map(|(column, cell)| match column {
                0 | 1 => format!("{cell:<width$}", width = widths[column]),
                _ => format!("{cell:>width$}", width = widths[column]),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        });
        lines.collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let Some((header, rows)) = self.0.split_first() else { return String::new() };
        let rule = header.iter().enumerate().map(|(column, _)| if column < 2 { "---" } else { "---:" });
        let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
        line(header) + &rule + &rows.iter().map(line).collect::<String>()
    }
}

/// What a number is, for people.
pub(crate) fn title(key: &Key) -> String {
    let measure = Measure::ALL.into_iter().find(|measure| measure.id() == key.measure);
    let measure = measure.map_or_else(|| key.measure.clone(), Measure::title);
    match key.quantity.title() {
        "" => measure,
        quantity => format!("{measure}: {quantity}"),
    }
}

fn cell(summary: &Summary, key: &Key, variant: &Variant) -> String {
    let Some(spread) = summary.spread(key, variant) else { return "-".to_owned() };
    let value = with_spread(spread);
    match summary.ratio(key, variant, &Variant::Plain) {
        Some(ratio) if *variant != Variant::Plain => format!("{value} ({ratio:.2})"),
        _ => value,
    }
}

fn with_spread(spread: Spread) -> String {
    format!("{} ±{:.0}%", number(spread.median), spread.width() * 100.0)
}

/// With three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        it if it >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, number};

    fn table() -> Table {
        let row = |cells: [&str; 3]| cells.map(ToOwned::to_owned).to_vec();
        Table(vec![row(["", "unit", "plain"]), row(["TCP", "Gbit/s", "10.0"])])
    }

    #[test]
    fn numbers_stand_right_and_names_left() {
        assert_eq!(table().text(), "     unit    plain\nTCP  Gbit/s   10.0\n");
    }

    #[test]
    fn markdown_has_a_rule_below_its_header() {
        assert_eq!(
            table().markdown(),
            "|  | unit | plain |\n| --- | --- | ---: |\n| TCP | Gbit/s | 10.0 |\n"
        );
    }

    #[test]
    fn three_digits_count() {
        let shown = [1234.5, 12.345, 1.2345, 0.1234].map(number);
        assert_eq!(shown, ["1234", "12.3", "1.23", "0.123"]);
    }
}
