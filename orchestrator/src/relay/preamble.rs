//! The first bytes of a connection that is passed on: a PROXY header, version 2 (HAProxy's `proxy-protocol.txt`), with the
//! secret of the one who leads in a field of the range for own use.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Builder, Command, Header, PROTOCOL_PREFIX, Protocol, Version};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::store::etcd::Secret;

/// `PP2_TYPE_MIN_CUSTOM`.
const SECRET: u8 = 0xE0;
/// Prefix, version and command, family, and the length of what follows.
const FIXED: usize = 16;
/// More does not follow: addresses of IPv6 and the secret.
const LONGEST: usize = 128;

/// That this connection to `to` is `from`'s.
pub(super) fn of(from: SocketAddr, to: SocketAddr, secret: &Secret) -> io::Result<Vec<u8>> {
    let addresses = Addresses::from(alike(from, to));
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses)
        .write_tlv(SECRET, secret.bytes())?
        .build()
}

/// Of one family, as the format wants it.
fn alike(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 @ SocketAddr::V6(_) => v6,
    };
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) }
}

/// Whose a connection is that has come from `peer`: as it says itself, if it is passed on by somebody who knows the secret,
/// else the peer's. Waits until the first byte is there.
///
/// # Errors
/// It ends, or begins like one that is passed on, and does not know the secret.
pub(crate) async fn accept(
    stream: &mut TcpStream,
    peer: SocketAddr,
    secret: Option<&Secret>,
) -> io::Result<SocketAddr> {
    let Some(secret) = secret else { return Ok(peer) };
    let mut first = [0];
    // Nothing that is served here begins with this byte.
    if stream.peek(&mut first).await? == 0 || first[0] != PROTOCOL_PREFIX[0] {
        return Ok(peer);
    }
    let mut bytes = vec![0; FIXED];
    stream.read_exact(&mut bytes).await?;
    let length = usize::from(u16::from_be_bytes([bytes[FIXED - 2], bytes[FIXED - 1]]));
    if !bytes.starts_with(PROTOCOL_PREFIX) || length > LONGEST {
        return Err(refused());
    }
    bytes.resize(FIXED + length, 0);
    stream.read_exact(&mut bytes[FIXED..]).await?;
    read(&bytes, secret).ok_or_else(refused)
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it is passed on by somebody who is not one of us")
}

fn read(bytes: &[u8], secret: &Secret) -> Option<SocketAddr> {
    let header = Header::try_from(bytes).ok()?;
    let knows =
        header.tlvs().flatten().any(|field| field.kind == SECRET && is_equal(&field.value, secret.bytes()));
    if !knows || secret.bytes().is_empty() {
        return None;
    }
    match header.addresses {
        Addresses::IPv4(ends) => Some(SocketAddr::new(ends.source_address.into(), ends.source_port)),
        Addresses::IPv6(ends) => Some(SocketAddr::new(ends.source_address.into(), ends.source_port)),
        Addresses::Unspecified | Addresses::Unix(_) => None,
    }
}

/// In a time that does not tell how much of it is right.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{accept, of, read};
    use crate::store::etcd::Secret;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn whose_it_is_is_read_as_it_was_written() {
        let secret = Secret::random();
        for (from, to, expected) in [
            ("192.0.2.1:7", "198.51.100.2:10000", "192.0.2.1:7"),
            ("[2001:db8::1]:7", "[2001:db8::2]:10000", "[2001:db8::1]:7"),
            ("192.0.2.1:7", "[2001:db8::2]:10000", "[::ffff:192.0.2.1]:7"),
        ] {
            let bytes = of(at(from), at(to), &secret).unwrap();
            assert_eq!(read(&bytes, &secret), Some(at(expected)));
            assert_eq!(read(&bytes, &Secret::random()), None);
            for length in 0..bytes.len() {
                assert_eq!(read(&bytes[..length], &secret), None, "{length} bytes");
            }
        }
        let empty = of(at("192.0.2.1:7"), at("192.0.2.2:7"), &Secret::default()).unwrap();
        assert_eq!(read(&empty, &Secret::default()), None, "one that has told no secret");
    }

    /// What is found out of a connection that begins with these bytes, and what is left of it.
    async fn begin(
        bytes: &[u8],
        secret: Option<&Secret>,
    ) -> (std::io::Result<SocketAddr>, SocketAddr, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, peer) = listener.accept().await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let found = accept(&mut stream, peer, secret).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (found, peer, rest)
    }

    #[tokio::test]
    async fn only_who_knows_the_secret_speaks_for_somebody_else() {
        let (secret, wrong) = (Secret::random(), Secret::random());
        let bytes =
            |secret| [of(at("192.0.2.1:7"), at("192.0.2.2:7"), secret).unwrap(), b"GET".to_vec()].concat();
        let (found, _, rest) = begin(&bytes(&secret), Some(&secret)).await;
        assert_eq!((found.unwrap(), &rest[..]), (at("192.0.2.1:7"), &b"GET"[..]));
        let (found, ..) = begin(&bytes(&wrong), Some(&secret)).await;
        found.unwrap_err();
        let (found, peer, rest) = begin(b"GET", Some(&secret)).await;
        assert_eq!((found.unwrap(), &rest[..]), (peer, &b"GET"[..]));
        // Where nobody else is, nobody speaks for others.
        let (found, peer, rest) = begin(&bytes(&secret), None).await;
        assert_eq!((found.unwrap(), rest), (peer, bytes(&secret)));
        let mut long = bytes(&secret);
        long[14] = 255;
        begin(&long, Some(&secret)).await.0.unwrap_err();
        begin(b"\r\n\r\nnothing that we know", Some(&secret)).await.0.unwrap_err();
        begin(b"\r\n", Some(&secret)).await.0.unwrap_err();
    }
}
