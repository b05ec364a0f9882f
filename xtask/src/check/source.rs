//! The Rust sources of the repository.

use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace;

/// A file with its path from the root of the workspace.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every `.rs` file outside of hidden directories and cargo's own.
pub(crate) fn all() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    collect(&workspace::root(), "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(directory: &Path, prefix: &str, into: &mut Vec<Source>) -> Result<()> {
    let cannot_read = || format!("cannot read {}", directory.display());
    for entry in std::fs::read_dir(directory).with_context(cannot_read)? {
        let entry = entry.with_context(cannot_read)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().with_context(cannot_read)?;
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&entry.path(), &format!("{path}/"), into)?;
        } else if kind.is_file() && name.ends_with(".rs") {
            let text =
                std::fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            into.push(Source { path, text });
        }
    }
    Ok(())
}
