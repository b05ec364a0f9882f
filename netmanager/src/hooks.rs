//! What hangs at the interfaces of this node: our programs, and those of others beside them.

use nix::net::if_::if_indextoname;
use serde::{Deserialize, Serialize};

use crate::datapath::{PROGRAMS, Programs, Tables, at_tcx};
use crate::net::Links;

/// The ingress of an interface where a program of ours belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Nothing if the interface is gone, or in another network namespace.
    pub interface: Option<String>,
    pub ifindex: u32,
    /// The program that belongs there.
    pub program: String,
    /// What is there, in the order in which it runs.
    pub attached: Vec<Attached>,
}

/// A program at an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub place: Place,
    /// Empty if its maker gave it none.
    pub name: String,
    /// The kernel's number of it.
    pub id: u32,
    /// Its hash, the same for the same build: 16 hexadecimal digits.
    pub tag: String,
    pub ours: bool,
}

/// By which way it is attached, in the order in which the kernel runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Xdp,
    Tcx,
    Clsact,
}

impl Place {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl Hook {
    /// How often the program that belongs there is there. More than once is as wrong as not at all.
    #[must_use]
    pub fn times(&self) -> usize {
        self.attached.iter().filter(|attached| attached.name == self.program).count()
    }

    /// The programs of others.
    pub fn foreign(&self) -> impl Iterator<Item = &Attached> {
        self.attached.iter().filter(|attached| !attached.ours)
    }
}

/// Looks at each interface that the tables name. An interface of which the kernel does not tell has nothing.
pub async fn look(tables: &Tables, links: &Links) -> Vec<Hook> {
    let programs = Programs::read();
    let mut hooks = Vec::new();
    for (ifindex, program) in tables.interfaces().unwrap_or_default() {
        // nix takes libc's null pointer for success and gives an empty name.
        let interface = if_indextoname(ifindex).ok().map(|name| name.to_string_lossy().into_owned());
        let interface = interface.filter(|name| !name.is_empty());
        let attached = match &interface {
            Some(name) => at(name, ifindex, links, &programs).await,
            None => Vec::new(),
        };
        hooks.push(Hook { interface, ifindex, program: program.to_owned(), attached });
    }
    hooks
}

/// The programs at one interface.
pub async fn at(interface: &str, ifindex: u32, links: &Links, programs: &Programs) -> Vec<Attached> {
    let filters = links.filters(ifindex).await.unwrap_or_default();
    let xdp = filters.xdp.into_iter().map(|id| (Place::Xdp, id));
    let tcx = at_tcx(interface).into_iter().map(|id| (Place::Tcx, id));
    let clsact = filters.clsact.into_iter().map(|id| (Place::Clsact, id));
    xdp.chain(tcx)
        .chain(clsact)
        .map(|(place, id)| {
            let program = programs.get(id);
            let name = program.map(|program| program.name.clone()).unwrap_or_default();
            let tag = program.map(|program| format!("{:016x}", program.tag)).unwrap_or_default();
            let ours = PROGRAMS.contains(&name.as_str());
            Attached { place, name, id, tag, ours }
        })
        .collect()
}
