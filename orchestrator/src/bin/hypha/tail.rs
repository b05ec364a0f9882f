//! New lines out of a window on the end of a log. The root keeps the last KiB of each instance, so what is new is
//! found by laying two windows over each other. Pure.

/// A window of this size or more has its beginning cut off, somewhere within a line.
const WINDOW: usize = 1000;

/// What was seen of one log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The last window.
    window: String,
    /// The end of it that has no line end yet.
    partial: String,
}

/// What a new window adds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Lines may be missing before these: more was written than one window holds, or the log began anew.
    pub(crate) gap: bool,
    pub(crate) lines: Vec<String>,
}

impl Tail {
    /// The complete lines in `window` that were not in the one before.
    pub(crate) fn advance(&mut self, window: &str) -> News {
        if window == self.window {
            return News::default();
        }
        let first = self.window.is_empty();
        let overlap = overlap(&self.window, window);
        let gap = overlap == 0 && !first;
        let (mut fresh, mut partial) = (&window[overlap..], std::mem::take(&mut self.partial));
        if overlap == 0 {
            partial.clear();
            if window.len() >= WINDOW {
                // The first line is a torn one.
                fresh = fresh.split_once('\n').map_or(fresh, |(_torn, whole)| whole);
            }
        }
        partial.push_str(fresh);
        self.window = window.to_owned();
        let Some((complete, rest)) = partial.rsplit_once('\n') else {
            self.partial = partial;
            return News { gap, lines: Vec::new() };
        };
        self.partial = rest.to_owned();
        News { gap, lines: complete.split('\n').map(|line| line.trim_end_matches('\r').to_owned()).collect() }
    }

    /// The line that has no end yet: it is due when nothing more can follow.
    pub(crate) fn finish(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.partial)).filter(|partial| !partial.is_empty())
    }
}

/// The longest end of `before` with which `after` begins, in bytes.
fn overlap(before: &str, after: &str) -> usize {
    let starts = before.char_indices().map(|(at, _)| at);
    let longest = starts.map(|at| &before[at..]).find(|end| after.starts_with(end));
    longest.map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::{News, Tail};

    fn lines(news: News) -> Vec<String> {
        assert!(!news.gap, "{news:?}");
        news.lines
    }

    #[test]
    fn only_new_and_complete_lines_are_given() {
        let mut tail = Tail::default();
        assert_eq!(lines(tail.advance("one\ntw")), ["one"]);
        assert_eq!(lines(tail.advance("one\ntw")), [""; 0]);
        assert_eq!(lines(tail.advance("one\ntwo\nthree\n")), ["two", "three"]);
        assert_eq!(lines(tail.advance("two\nthree\nfour\nfi")), ["four"]);
        assert_eq!(tail.finish().as_deref(), Some("fi"));
        assert_eq!(tail.finish(), None);
    }

    #[test]
    fn a_window_without_overlap_is_a_gap() {
        let mut tail = Tail::default();
        tail.advance("one\ntwo\n");
        assert_eq!(
            tail.advance("eight\nnine\n"),
            News { gap: true, lines: vec!["eight".into(), "nine".into()] }
        );
    }

    #[test]
    fn the_torn_first_line_of_a_full_window_is_left_out() {
        let window = format!("orn line\n{}\n", "x".repeat(1000));
        assert_eq!(lines(Tail::default().advance(&window)), ["x".repeat(1000)]);
        assert_eq!(lines(Tail::default().advance("short\n")), ["short"]);
    }

    #[test]
    fn windows_may_be_cut_within_many_byte_letters() {
        let mut tail = Tail::default();
        tail.advance("äöü\n\u{fffd}");
        assert_eq!(lines(tail.advance("öü\n\u{fffd}ß\n")), ["\u{fffd}ß"]);
    }
}
