//! One thing that a machine must have.

use std::fmt;
use std::path::Path;

use super::cargo::Tool;
use super::{apt, compiler};
use crate::{process, vm};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) found: Found,
    pub(crate) source: Source,
}

/// How to see that a part is there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    Program(&'static str),
    When(fn() -> bool),
}

/// Where a part comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Apt(&'static [&'static str]),
    Cargo(&'static Tool),
    Rustup(&'static str),
    /// A kernel of the distribution, for a virtual machine.
    Kernel,
    /// The distribution's, else rustup's nightly.
    Compiler,
    /// Built for the LLVM of the distribution's compiler, else the binary of its project.
    Linker,
}

// === impl Found ===

impl Found {
    pub(crate) fn holds(self) -> bool {
        match self {
            Self::Program(name) => process::find(name).is_some(),
            Self::When(condition) => condition(),
        }
    }
}

// === impl Source ===

impl Source {
    /// The packages to install for certain; compiler and linker see for themselves what there is.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Apt(packages) => packages,
            _ => &[],
        }
    }

    pub(crate) fn uses_apt(self) -> bool {
        matches!(self, Self::Apt(_) | Self::Kernel | Self::Compiler | Self::Linker)
    }

    /// What a person has to do where we cannot: no root, or another distribution.
    pub(crate) fn by_hand(self) -> Option<String> {
        match self {
            Self::Kernel if !apt::has_all(&[vm::kernel::PACKAGE]) => {
                Some(format!("a distribution for amd64 that has {}", vm::kernel::PACKAGE))
            }
            Self::Kernel => None,
            _ if self.uses_apt() && apt::is_usable() => None,
            Self::Apt(packages) if apt::is_there() => Some(apt::by_hand(packages)),
            Self::Apt(packages) => Some(format!("what Debian packages as {}", packages.join(", "))),
            Self::Compiler if apt::has_all(&compiler::PACKAGES) => Some(apt::by_hand(&compiler::PACKAGES)),
            Self::Linker if apt::has_all(&compiler::PACKAGES) => {
                Some("as root, with the compiler: cargo xtask setup --for object".to_owned())
            }
            Self::Compiler => Some(compiler::BY_HAND.to_owned()),
            Self::Linker => Some(compiler::LINKER_BY_HAND.to_owned()),
            Self::Rustup(component) if process::find("rustup").is_none() => {
                Some(format!("{component} of the Rust toolchain in use"))
            }
            Self::Cargo(_) | Self::Rustup(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apt(packages) => write!(f, "apt: {}", packages.join(" ")),
            Self::Cargo(tool) => write!(f, "cargo: {} {}, into target/tools", tool.name, tool.version),
            Self::Rustup(component) => write!(f, "rustup: {component}"),
            Self::Kernel => write!(f, "apt: {}, into target/vm", vm::kernel::PACKAGE),
            Self::Compiler => f.write_str("apt: rustc-web and its core for BPF, or rustup: nightly"),
            Self::Linker => f.write_str("cargo: bpf-linker, into target/tools, with apt: LLVM"),
        }
    }
}

/// Whether an executable needs no libraries, so that it runs in an image that has none.
pub(crate) fn is_static(program: &Path) -> bool {
    use object::{File, Object};
    let Ok(bytes) = std::fs::read(program) else { return false };
    File::parse(&*bytes).is_ok_and(|file| file.section_by_name(".interp").is_none())
}
