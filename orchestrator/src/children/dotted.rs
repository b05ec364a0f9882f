//! Names and addresses in the paths of the net API, where clusters write their dots as `_`.

use std::str::FromStr;

/// What a path names whose dots are written as `_`; nothing: it is no such thing.
pub(crate) fn dotted<T: FromStr>(text: &str) -> Option<T> {
    text.replace('_', ".").parse().ok()
}
