//! No file holds more than one subject. Its length is what a machine can see of that.

use anyhow::{Result, bail};

use super::source;

/// Lines of code, without blank lines, comments and inline tests.
const LIMIT: usize = 400;

pub(crate) fn check() -> Result<()> {
    let sources = source::all()?;
    let lengths = sources.iter().map(|source| (lines_of_code(&source.text), &source.path));
    let long: Vec<_> = lengths.filter(|(lines, _)| *lines > LIMIT).collect();
    if long.is_empty() {
        return Ok(());
    }
    let long: Vec<_> = long.iter().map(|(lines, path)| format!("    {lines:>5} {path}")).collect();
    bail!("these files have more than {LIMIT} lines of code, split them by subject:\n{}", long.join("\n"))
}

/// Relies on rustfmt: an inline module of tests ends at the first brace that stands where its line began.
fn lines_of_code(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines();
    let mut after_test_attribute = false;
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if after_test_attribute && code.starts_with("mod ") && code.ends_with('{') {
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            lines.by_ref().find(|line| *line == end);
            after_test_attribute = false;
            continue;
        }
        after_test_attribute = code == "#[cfg(test)]";
        if !code.is_empty() && !code.starts_with("//") && !after_test_attribute {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::lines_of_code;

    #[test]
    fn only_code_counts() {
        let text = "//! Doc.\n\nuse a;\n\n/// Doc.\nfn f() {\n    // why\n    g();\n}\n";
        assert_eq!(lines_of_code(text), 4);
    }

    #[test]
    fn inline_tests_do_not_count_but_what_follows_does() {
        let text = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\n\nfn g() {}\n";
        assert_eq!(lines_of_code(text), 2);
    }
}
