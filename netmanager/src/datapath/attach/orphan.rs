//! Attachments of ours that have lost their pins and are still there.
//!
//! Who mounts a BPF file system over the one that our pins are in hides them: the links live on in the hidden one, where
//! nobody finds them. A second program beside the first would then see only what that one leaves, on other tables. So
//! before anything is attached, what is at the hook under our name is taken over, and what is there twice is ended.
//!
//! aya lists the programs of a hook, not their links; hence these calls of bpf(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

/// More programs than anybody has at one hook.
const MOST: usize = 64;

const PROG_QUERY: libc::c_long = 16;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_DETACH: libc::c_long = 34;
const TCX_INGRESS: u32 = 46;

/// The parts of `union bpf_attr` that the calls read, as linux/bpf.h has them.
trait Attribute {}

#[repr(C)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    open_flags: u32,
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct Detach {
    link: u32,
}

impl Attribute for Query {}
impl Attribute for ById {}
impl Attribute for Pin {}
impl Attribute for Detach {}

/// How often, and after which pause, to look again for a link that is about to end. The kernel lets go of one whose last
/// pin was removed in work of its own; until then it refuses the same program a second time.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Pins at `path` the link by which a program called `name` is at the ingress of an interface, if there is one, and ends all
/// others of that name.
pub(super) fn adopt(name: &str, interface: &str, ifindex: u32, path: &Path) -> Result<(), ProgramError> {
    for _ in 0..LOOKS {
        match look(name, interface, ifindex, path)? {
            Seen::Nothing | Seen::Adopted => break,
            Seen::Ending => std::thread::sleep(PAUSE),
        }
    }
    Ok(())
}

enum Seen {
    Nothing,
    Adopted,
    /// Only links that are about to end.
    Ending,
}

fn look(name: &str, interface: &str, ifindex: u32, path: &Path) -> Result<Seen, ProgramError> {
    let (_revision, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress)?;
    let ours = |id| programs.iter().any(|program| program.id() == id && program.name_as_str() == Some(name));
    let mut seen = Seen::Nothing;
    for (program, link) in links(ifindex)? {
        // A program that was attached without a link is not of our making.
        if link == 0 || !ours(program) {
            continue;
        }
        match (open(link), &seen) {
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
                if matches!(seen, Seen::Nothing) {
                    seen = Seen::Ending;
                }
            }
            (link, Seen::Adopted) => {
                call(LINK_DETACH, &mut Detach { link: number(&link?) })?;
            }
            (link, _) => {
                pin(&link?, path)?;
                seen = Seen::Adopted;
            }
        }
    }
    Ok(seen)
}

/// The programs at the ingress of an interface, each with its link.
fn links(ifindex: u32) -> io::Result<Vec<(u32, u32)>> {
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut query = Query {
        target_ifindex: ifindex,
        attach_type: TCX_INGRESS,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: address(programs.as_mut_ptr()),
        count: u32::try_from(MOST).map_err(io::Error::other)?,
        _pad: 0,
        prog_attach_flags: 0,
        link_ids: address(links.as_mut_ptr()),
        link_attach_flags: 0,
        revision: 0,
    };
    call(PROG_QUERY, &mut query)?;
    let count = usize::try_from(query.count).map_err(io::Error::other)?;
    Ok(programs.into_iter().zip(links).take(count).collect())
}

fn open(link: u32) -> io::Result<OwnedFd> {
    let fd = call(LINK_GET_FD_BY_ID, &mut ById { id: link, next: 0, open_flags: 0 })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for this call, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    call(OBJ_PIN, &mut Pin { path: address(path.as_ptr()), fd: number(link), file_flags: 0 }).map(drop)
}

/// Ends the link that is pinned at `path`; the pin stays.
pub(super) fn detach_pinned(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = call(OBJ_GET, &mut Pin { path: address(path.as_ptr()), fd: 0, file_flags: 0 })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: as in `open`.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    call(LINK_DETACH, &mut Detach { link: number(&link) }).map(drop)
}

/// As the kernel wants pointers.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// bpf(2). Pointers in `attribute` must be to memory that is large enough for what the call reads or writes there, and that
/// lives until it returns.
fn call<A: Attribute>(command: libc::c_long, attribute: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most as many bytes of the attribute as it is told. Every caller above owns
    // the memory that its attribute points to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
