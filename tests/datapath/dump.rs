//! All that lies in the pinned tables, as bytes, by bpf(2) itself.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::{MapInfo, MapType};

const LOOKUP: libc::c_long = 1;
const NEXT_KEY: libc::c_long = 4;
const LOOKUP_BATCH: libc::c_long = 24;

/// As linux/bpf.h has the parts of `union bpf_attr` for one entry and for many.
trait Attribute {}

#[repr(C)]
struct One {
    map: u32,
    _pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

#[repr(C)]
struct Many {
    before: u64,
    after: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    entry_flags: u64,
    flags: u64,
}

impl Attribute for One {}
impl Attribute for Many {}

/// Each table's content, but the ring's. What else lies there are directories.
pub(crate) fn tables(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    files
        .filter(|file| file.file_type().unwrap().is_file())
        .map(|file| {
            let info = MapInfo::from_pin(file.path()).unwrap();
            let content = match info.map_type().unwrap() {
                MapType::RingBuf => Vec::new(),
                MapType::Array => array(&info),
                MapType::PerCpuArray => entries(
                    &info,
                    info.value_size().next_multiple_of(8) as usize * aya::util::nr_cpus().unwrap(),
                ),
                _ => entries(&info, info.value_size() as usize),
            };
            (file.file_name().to_string_lossy().into_owned(), content)
        })
        .collect()
}

/// All values, in one call: the arrays are long.
fn array(info: &MapInfo) -> Vec<u8> {
    let count = info.max_entries();
    let mut values = vec![0; count as usize * info.value_size().next_multiple_of(8) as usize];
    let (mut keys, mut after) = (vec![0_u32; count as usize], 0_u32);
    let fd = info.fd().unwrap();
    let mut many = Many {
        before: 0,
        after: address(&raw mut after),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count,
        map: fd.as_fd().as_raw_fd().cast_unsigned(),
        entry_flags: 0,
        flags: 0,
    };
    match call(LOOKUP_BATCH, &mut many) {
        // It says so when it has come to the end, too.
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
        _ => assert_eq!(many.count, count),
    }
    values
}

/// Keys and values, one after another, in the order of keys.
fn entries(info: &MapInfo, size: usize) -> Vec<u8> {
    let fd = info.fd().unwrap();
    let map = fd.as_fd().as_raw_fd().cast_unsigned();
    let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut key: Option<Vec<u8>> = None;
    loop {
        let mut next = vec![0; info.key_size() as usize];
        let before = key.as_ref().map_or(0, |key| address(key.as_ptr()));
        let one = |key, value_or_next| One { map, _pad: 0, key, value_or_next, flags: 0 };
        if call(NEXT_KEY, &mut one(before, address(next.as_mut_ptr()))).is_err() {
            break;
        }
        let mut value = vec![0; size];
        call(LOOKUP, &mut one(address(next.as_ptr()), address(value.as_mut_ptr()))).unwrap();
        found.insert(next.clone(), value);
        key = Some(next);
    }
    found.into_iter().flat_map(|(key, value)| [key, value].concat()).collect()
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// bpf(2). What the attribute points to must be as large as what the call reads or writes there, and live until it
/// returns.
fn call<A: Attribute>(command: libc::c_long, attribute: &mut A) -> io::Result<()> {
    // SAFETY: the kernel reads and writes as many bytes of the attribute as it is told; the callers above own memory of
    // the sizes that the kernel itself has told for this table.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
