//! Where in a JSON text a path leads: `applications[0].microservices[1].port` -> line and column. Pure.

/// Line and column, counted from 1 (columns in characters), of the value at `path`; of the innermost one that is
/// there, if the path leads on to something that is missing. `text` has to be valid JSON.
pub(crate) fn locate(text: &str, path: &str) -> (usize, usize) {
    let mut scanner = Scanner { text, at: 0 };
    scanner.descend(&steps(path));
    let before = &text[..scanner.at.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// `a[0].b` as steps.
fn steps(path: &str) -> Vec<Step> {
    let parts = path.split(['.', '[']).map(|part| part.trim_end_matches(']')).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Index)).collect()
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Goes to the value at the end of `steps`, from the value that begins here.
    fn descend(&mut self, steps: &[Step]) {
        self.skip_blanks();
        let Some((step, rest)) = steps.split_first() else { return };
        let here = self.at;
        if self.enter(step) { self.descend(rest) } else { self.at = here }
    }

    /// Goes to the member or element that `step` names; false if there is none.
    fn enter(&mut self, step: &Step) -> bool {
        let is_object = match (self.peek(), step) {
            (Some(b'{'), Step::Key(_)) => true,
            (Some(b'['), Step::Index(_)) => false,
            _ => return false,
        };
        self.at += 1;
        for index in 0.. {
            self.skip_blanks();
            if matches!(self.peek(), None | Some(b'}' | b']')) {
                return false;
            }
            let found = if is_object {
                let key = self.key();
                matches!(step, Step::Key(wanted) if key.as_deref() == Some(wanted))
            } else {
                *step == Step::Index(index)
            };
            if found {
                return true;
            }
            self.skip_value();
        }
        false
    }

    /// Reads a key and goes behind its colon.
    fn key(&mut self) -> Option<String> {
        let start = self.at;
        self.skip_string();
        let key = serde_json::from_str(&self.text[start..self.at]).ok();
        self.skip_blanks();
        self.at += 1;
        self.skip_blanks();
        key
    }

    /// Goes behind the value that begins here, and behind its comma.
    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => {
                    self.at += 1;
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::locate;

    const TEXT: &str = r#"{
  "a \"b\" [": [1, {"x": "}]\\"}],
  "list": [
    "ö,", { "k": 7, "d": { "e": null } }
  ]
}
"#;

    #[test]
    fn a_path_leads_to_line_and_column() {
        assert_eq!(locate(TEXT, ""), (1, 1));
        assert_eq!(locate(TEXT, "list"), (3, 11));
        assert_eq!(locate(TEXT, "list[1]"), (4, 11));
        assert_eq!(locate(TEXT, "list[1].k"), (4, 18));
        assert_eq!(locate(TEXT, "list[1].d.e"), (4, 33));
    }

    #[test]
    fn a_path_to_nothing_leads_as_far_as_it_goes() {
        assert_eq!(locate(TEXT, "list[1].missing"), (4, 11));
        assert_eq!(locate(TEXT, "list[9]"), (3, 11));
        assert_eq!(locate(TEXT, "list.k"), (3, 11));
        assert_eq!(locate(TEXT, "nothing.at.all"), (1, 1));
    }

    #[test]
    fn a_text_that_is_no_json_does_no_harm() {
        for text in ["", "{", "{\"", "[1,", "{\"a\"", "\"\\"] {
            locate(text, "a[1].b");
        }
    }
}
