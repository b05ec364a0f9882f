//! The first bytes of a connection to a server, and of a datagram.

/// Of a request, and of the answer to [`Request::Connection`].
pub(super) const LENGTH: usize = 64;
/// The largest answer that may be asked for.
pub(super) const MAX_ECHO: u32 = 65_536;

const MAGIC: [u8; 4] = *b"hyb1";

/// What a peer wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// To send until it closes its side, and then to hear how many bytes came in how many nanoseconds.
    Bulk,
    /// To send as many bytes again and again, and to get them back.
    Echo { size: u32 },
    /// An answer as long as the request, and the end.
    Connection,
    /// The numbers of [`super::State`].
    State,
}

impl Request {
    pub(super) fn to_bytes(self) -> [u8; LENGTH] {
        let (kind, size) = match self {
            Self::Bulk => (1, 0),
            Self::Echo { size } => (2, size),
            Self::Connection => (3, 0),
            Self::State => (4, 0),
        };
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = kind;
        bytes[8..12].copy_from_slice(&u32::to_be_bytes(size));
        bytes
    }

    /// Of anything else, nothing.
    pub(super) fn read(bytes: &[u8; LENGTH]) -> Option<Self> {
        if bytes[..4] != MAGIC {
            return None;
        }
        let size = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        match bytes[4] {
            1 => Some(Self::Bulk),
            2 if (1..=MAX_ECHO).contains(&size) => Some(Self::Echo { size }),
            3 => Some(Self::Connection),
            4 => Some(Self::State),
            _ => None,
        }
    }
}

/// What is to be done with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datagram {
    Count,
    Echo,
}

impl Datagram {
    /// Bytes before the filling.
    pub(super) const HEADER: usize = 9;

    /// The beginning of a datagram for the server that gave this token.
    pub(super) fn header(self, token: u64) -> [u8; Self::HEADER] {
        let mut bytes = [0; Self::HEADER];
        bytes[..8].copy_from_slice(&token.to_be_bytes());
        bytes[8] = match self {
            Self::Count => 1,
            Self::Echo => 2,
        };
        bytes
    }

    /// Of a datagram without the token, nothing: it may come from anybody, and name anybody as its sender.
    pub(super) fn read(bytes: &[u8], token: u64) -> Option<Self> {
        let header = bytes.first_chunk::<{ Self::HEADER }>()?;
        [Self::Count, Self::Echo].into_iter().find(|kind| kind.header(token) == *header)
    }
}

#[cfg(test)]
mod tests {
    use super::{Datagram, LENGTH, MAX_ECHO, Request};

    #[test]
    fn what_is_written_is_read_again() {
        for request in [Request::Bulk, Request::Echo { size: 64 }, Request::Connection, Request::State] {
            assert_eq!(Request::read(&request.to_bytes()), Some(request));
        }
        for kind in [Datagram::Count, Datagram::Echo] {
            assert_eq!(Datagram::read(&kind.header(7), 7), Some(kind));
        }
    }

    #[test]
    fn nothing_else_is_a_request() {
        assert_eq!(Request::read(&[0; LENGTH]), None);
        assert_eq!(Request::read(&Request::Echo { size: MAX_ECHO + 1 }.to_bytes()), None);
        assert_eq!(Request::read(&Request::Echo { size: 0 }.to_bytes()), None);
        assert_eq!(Datagram::read(&Datagram::Echo.header(7), 8), None);
        assert_eq!(Datagram::read(&Datagram::Echo.header(7)[..8], 7), None);
    }
}
