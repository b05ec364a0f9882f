//! Servers that say as whom they see who asks, and those who ask them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use integration::Netns;

pub(crate) const PORT: u16 = 7000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells whoever asks, by TCP or UDP, as whom it is seen.
pub(crate) fn serve(netns: &Netns) -> Result<()> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let (tcp, udp) =
        netns.run(|| -> Result<_> { Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?)) })??;
    let seen = |peer: SocketAddr| peer.ip().to_canonical().to_string();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            stream.write_all(seen(peer).as_bytes()).ok();
        }
    });
    thread::spawn(move || {
        while let Ok((_, peer)) = udp.recv_from(&mut [0; 16]) {
            udp.send_to(seen(peer).as_bytes(), peer).ok();
        }
    });
    Ok(())
}

pub(crate) fn ask_by_tcp(from: &Netns, address: IpAddr) -> Result<String> {
    let mut stream = from.run(|| TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn ask_by_udp(from: &Netns, address: IpAddr) -> Result<String> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = from.run(|| UdpSocket::bind((any, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address, PORT))?;
    socket.send(b"who?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

pub(crate) fn ping(from: &Netns, address: IpAddr) -> Result<()> {
    from.output("ping", &["-n", "-c", "1", "-W", "5", &address.to_string()]).map(drop)
}
