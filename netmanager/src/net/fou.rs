//! "Foo over UDP" (`linux/fou.h`), which makes the kernel merge the inner IPv4 packets of
//! [`netmanager_common::link::Link::Bare`]: that it listens on the tunnel's port is all that it is for. Spoken to by generic netlink.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_REQUEST, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

use super::NetError;

/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ERROR: u16 = 2;
/// Who knows the numbers of families (`linux/genetlink.h`), and its words.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The words of the family.
const NAME: &[u8] = b"fou\0";
const ADD: u8 = 1;
const REMOVE: u8 = 2;
const PORT: u16 = 1;
const FAMILY_OF_ADDRESSES: u16 = 2;
const PROTOCOL: u16 = 3;
const KIND: u16 = 4;
/// What is inside: IPv4, without a header of its own.
const IPV4: u8 = 4;
const DIRECT: u8 = 1;

/// Lets the kernel merge what comes to this UDP port of an address of this family, in the namespace of the calling thread. Done
/// twice it is done once. Says whether it does: not every kernel can.
///
/// # Errors
/// When the kernel can, and refuses: somebody has the port.
pub fn merge_on(address: IpAddr, port: u16) -> Result<bool, NetError> {
    let failed = |error: io::Error| {
        NetError::new(format!("have the kernel merge what comes to port {port}"), error.into())
    };
    let Some(fou) = Fou::open().map_err(failed)? else { return Ok(false) };
    let mut words = of_port(address, port);
    words.extend([DefaultNla::new(PROTOCOL, vec![IPV4]), DefaultNla::new(KIND, vec![DIRECT])]);
    match fou.say(ADD, &words) {
        Err(error) if error.raw_os_error() == Some(libc::EALREADY) => Ok(true),
        // A kernel without IPv6 inside of it.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(false),
        done => done.map(|()| true).map_err(failed),
    }
}

/// Ends it; none is no failure. Says whether there was one.
///
/// # Errors
/// When the kernel does not answer.
pub fn merge_no_more(address: IpAddr, port: u16) -> Result<bool, NetError> {
    let failed = |error: io::Error| {
        NetError::new(format!("have the kernel not merge what comes to port {port}"), error.into())
    };
    let Some(fou) = Fou::open().map_err(failed)? else { return Ok(false) };
    // Whatever else it says is that there is none.
    Ok(fou.say(REMOVE, &of_port(address, port)).is_ok())
}

fn of_port(address: IpAddr, port: u16) -> Vec<DefaultNla> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    vec![
        DefaultNla::new(PORT, port.to_be_bytes().to_vec()),
        DefaultNla::new(FAMILY_OF_ADDRESSES, vec![u8::try_from(family).unwrap_or_default()]),
    ]
}

/// A socket of the calling thread's namespace, and the number that the family has on this machine.
struct Fou {
    socket: Socket,
    family: u16,
}

impl Fou {
    /// Nothing where the kernel has no such thing, and no module of it.
    fn open() -> io::Result<Option<Self>> {
        let socket = Socket::new(NETLINK_GENERIC)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let question =
            message(CONTROL, GET_FAMILY, NLM_F_REQUEST, &[DefaultNla::new(FAMILY_NAME, NAME.to_vec())]);
        match ask(&socket, &question) {
            Ok(answer) => {
                let family =
                    family_in(&answer).ok_or_else(|| io::Error::other("an answer without a number"))?;
                Ok(Some(Self { socket, family }))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn say(&self, command: u8, words: &[DefaultNla]) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        ask(&self.socket, &message(self.family, command, flags, words)).map(drop)
    }
}

/// Sends, and gives the answer, of which there must be one. An error that the kernel tells is one.
fn ask(socket: &Socket, message: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match told(&answer) {
        Some(0) | None => Ok(answer),
        Some(number) => Err(io::Error::from_raw_os_error(number)),
    }
}

fn message(kind: u16, command: u8, flags: u16, words: &[DefaultNla]) -> Vec<u8> {
    const VERSION: u8 = 1;
    let length = HEADER + GENERIC_HEADER + words.buffer_len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Neither a number of this message nor of its sender: one question at a time.
    bytes.extend([0; 8]);
    bytes.extend([command, VERSION, 0, 0]);
    bytes.resize(length, 0);
    words.emit(&mut bytes[HEADER + GENERIC_HEADER..]);
    bytes
}

/// The error that an answer tells; 0 if it is that all went well, nothing if it tells something else.
fn told(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let number = i32::from_ne_bytes(*answer.get(HEADER..)?.first_chunk()?);
    (kind == ERROR).then_some(number.saturating_neg())
}

fn family_in(answer: &[u8]) -> Option<u16> {
    let length = u32::from_ne_bytes(*answer.first_chunk()?);
    let words = answer.get(HEADER + GENERIC_HEADER..usize::try_from(length).ok()?)?;
    let word = NlasIterator::new(words).flatten().find(|word| word.kind() == FAMILY_ID)?;
    Some(u16::from_ne_bytes(*word.value().first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::{CONTROL, ERROR, FAMILY_ID, GET_FAMILY, family_in, message, told};
    use rtnetlink::packet_core::DefaultNla;

    #[test]
    fn a_family_is_known_by_its_number() {
        let other = DefaultNla::new(2, b"fou\0".to_vec());
        let number = DefaultNla::new(FAMILY_ID, 27_u16.to_ne_bytes().to_vec());
        let answer = message(CONTROL, GET_FAMILY, 0, &[other.clone(), number]);
        assert_eq!((family_in(&answer), told(&answer)), (Some(27), None));
        assert_eq!(family_in(&message(CONTROL, GET_FAMILY, 0, &[other])), None);
        for length in 0..answer.len() {
            assert_eq!(family_in(&answer[..length]), None, "{length}");
        }
    }

    #[test]
    fn what_went_wrong_is_read() {
        let mut answer = message(ERROR, 0, 0, &[]);
        answer[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(told(&answer), Some(2));
        answer[16..20].fill(0);
        assert_eq!(told(&answer), Some(0));
        assert_eq!(told(&answer[..10]), None);
    }
}
