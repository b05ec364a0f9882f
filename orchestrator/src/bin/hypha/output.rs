//! Lists in the forms of `-o`. Pure: the same rows give the same text.

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row as Line, Table};
pub(crate) use orchestrator::standing::Mood;
use serde_json::Value;

use crate::terminal::plain;
use crate::yaml;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    /// A table with more columns, never cut.
    Wide,
    /// A JSON array, `[]` when there is nothing.
    Json,
    /// One JSON object a line.
    Jsonl,
    Yaml,
    /// KIND/NAME, a line each, as `hypha delete` takes it.
    Name,
}

impl Format {
    /// Whether errors are wanted in JSON too.
    pub(crate) const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

/// Where a table is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Columns of the terminal; `None` never cuts.
    pub(crate) width: Option<u16>,
    pub(crate) colours: bool,
    pub(crate) headers: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Only in `-o wide`.
    pub(crate) wide: bool,
    /// Numbers are aligned to the right.
    pub(crate) right: bool,
}

impl Column {
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, wide: false, right: false }
    }

    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, wide: false, right: true }
    }

    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// A cell. The colour of its mood is never the only sign of it: the word stands there, too.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) mood: Mood,
}

impl Field {
    pub(crate) fn mood(text: impl Into<String>, mood: Mood) -> Self {
        Self { text: text.into(), mood }
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self { text, mood: Mood::Plain }
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) fields: Vec<Field>,
    /// KIND/NAME.
    pub(crate) name: String,
    /// The document as the root gave it.
    pub(crate) document: Value,
}

#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Row>,
}

/// The text of `listing`, without a line end after the last line. Empty for a table without rows.
pub(crate) fn render(listing: &Listing, format: Format, frame: Frame) -> String {
    let documents = || listing.rows.iter().map(|row| row.document.clone());
    match format {
        Format::Table => table(listing, false, frame),
        Format::Wide => table(listing, true, frame),
        Format::Json => format!("{:#}", Value::Array(documents().collect())),
        Format::Jsonl => documents().map(|document| document.to_string()).collect::<Vec<_>>().join("\n"),
        Format::Yaml => yaml::write(&Value::Array(documents().collect())),
        Format::Name => listing.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join("\n"),
    }
}

fn table(listing: &Listing, wide: bool, frame: Frame) -> String {
    if listing.rows.is_empty() {
        return String::new();
    }
    let shown: Vec<usize> =
        (0..listing.columns.len()).filter(|&at| wide || !listing.columns[at].wide).collect();
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_truncation_indicator("…");
    match frame.width {
        Some(width) if !wide => table.set_width(width),
        // Else comfy-table would ask the terminal by itself.
        _ => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if frame.colours {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if frame.headers {
        table.set_header(shown.iter().map(|&at| Cell::new(listing.columns[at].title)));
    }
    for row in &listing.rows {
        let mut line = Line::from(shown.iter().map(|&at| cell(&row.fields[at])).collect::<Vec<_>>());
        // A row is a line: what does not fit into the terminal is cut there, and nowhere else.
        line.max_height(1);
        table.add_row(line);
    }
    for (column, &at) in table.column_iter_mut().zip(&shown) {
        // Only the last column gives way: a name that is cut names nothing.
        if shown.last() == Some(&at) {
            column.set_padding((0, 0));
        } else {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
        if listing.columns[at].right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn cell(field: &Field) -> Cell {
    let text = if field.text.is_empty() { "-" } else { &field.text };
    let cell = Cell::new(plain(text));
    match field.mood {
        Mood::Plain => cell,
        Mood::Good => cell.fg(Color::Green),
        Mood::Changing => cell.fg(Color::Yellow),
        Mood::Bad => cell.fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Column, Field, Format, Frame, Listing, Mood, Row, render};

    const COLUMNS: &[Column] = &[
        Column::text("SERVICE"),
        Column::number("READY"),
        Column::text("IMAGE").wide(),
        Column::text("DETAIL"),
    ];
    const PIPE: Frame = Frame { width: None, colours: false, headers: true };
    const TERMINAL: Frame = Frame { width: Some(80), ..PIPE };

    fn row(name: &str, ready: &str, detail: &str) -> Row {
        Row {
            fields: vec![name.into(), Field::mood(ready, Mood::Good), "nginx:1".into(), detail.into()],
            name: format!("service/{name}"),
            document: json!({ "name": name }),
        }
    }

    fn listing() -> Listing {
        let long = "no worker fits: wants 2048 MB of memory, the most that is free is 1536 MB";
        Listing { columns: COLUMNS, rows: vec![row("shop/web", "3/3", ""), row("shop/cam", "10/12", long)] }
    }

    #[test]
    fn a_terminal_gets_one_line_a_row_cut_at_its_width() {
        let text = render(&listing(), Format::Table, TERMINAL);
        let expected = "\
SERVICE   READY  DETAIL
shop/web    3/3  -
shop/cam  10/12  no worker fits: wants 2048 MB of memory, the most that is free…";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn names_are_never_cut() {
        let long = "a".repeat(60);
        let listing = Listing { columns: COLUMNS, rows: vec![row(&long, "3/3", &"why ".repeat(20))] };
        for format in [Format::Table, Format::Wide] {
            let text = render(&listing, format, TERMINAL);
            assert!(text.contains(&long), "\n{text}");
        }
    }

    #[test]
    fn a_pipe_gets_everything() {
        let text = render(&listing(), Format::Wide, PIPE);
        assert!(text.ends_with("1536 MB"), "\n{text}");
        assert!(text.lines().next().unwrap().contains("IMAGE"), "\n{text}");
    }

    #[test]
    fn headers_and_colours_can_be_left_out_and_forced() {
        let text = render(&listing(), Format::Table, Frame { headers: false, colours: true, width: None });
        assert!(!text.contains("SERVICE") && text.contains("\x1b["), "\n{text}");
    }

    #[test]
    fn nothing_is_an_empty_array_and_no_table() {
        let empty = Listing { columns: COLUMNS, rows: Vec::new() };
        assert_eq!(render(&empty, Format::Json, PIPE), "[]");
        assert_eq!(render(&empty, Format::Yaml, PIPE), "[]");
        assert_eq!(render(&empty, Format::Table, PIPE), "");
        assert_eq!(render(&empty, Format::Name, PIPE), "");
    }

    #[test]
    fn names_and_lines_of_json_are_for_scripts() {
        assert_eq!(render(&listing(), Format::Name, PIPE), "service/shop/web\nservice/shop/cam");
        assert_eq!(
            render(&listing(), Format::Jsonl, PIPE),
            "{\"name\":\"shop/web\"}\n{\"name\":\"shop/cam\"}"
        );
    }

    #[test]
    fn a_name_cannot_draw_on_the_terminal() {
        let nasty = Listing { columns: COLUMNS, rows: vec![row("a\x1b[2Jb\nc", "0/1", "")] };
        let text = render(&nasty, Format::Table, PIPE);
        assert!(!text.contains('\x1b') && text.lines().count() == 2, "\n{text:?}");
    }
}
