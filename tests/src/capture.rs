//! Packets as `tcpdump` sees them on a link, decoded by a library that is not ours.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::netns::Netns;
use crate::wait::eventually;

const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;

/// A running `tcpdump` that writes to a file.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

/// A packet of the overlay on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPacket {
    pub outer_source: SocketAddrV4,
    pub outer_destination: SocketAddrV4,
    /// Whether the inner packet stands behind a VXLAN and an Ethernet header; else it is the UDP payload.
    pub is_vx: bool,
    pub inner_source: Ipv4Addr,
    pub inner_destination: Ipv4Addr,
    /// `TCP 41000 > 80`, `ICMP`.
    pub inner_transport: String,
}

impl fmt::Display for TunnelPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outer_source, outer_destination, is_vx, inner_source, inner_destination, inner_transport } =
            self;
        let vx = if *is_vx { "VXLAN " } else { "" };
        write!(
            f,
            "UDP {outer_source} > {outer_destination}  {vx}[ {inner_source} > {inner_destination}  {inner_transport} ]"
        )
    }
}

impl Capture {
    /// Starts to capture what `filter` selects on `link`, and returns when `tcpdump` listens.
    pub fn start(netns: &Netns, link: &str, filter: &str, file: PathBuf) -> Result<Self> {
        let mut tcpdump = netns
            .command("tcpdump")?
            // No change of user: the file is in a folder of root's.
            .args(["-Z", "root", "-n", "-U", "--immediate-mode", "-i", link, "-w"])
            .arg(&file)
            .arg(filter)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start tcpdump")?;
        let errors = tcpdump.stderr.take().context("the standard error of tcpdump")?;
        let mut said = String::new();
        for line in BufReader::new(errors).lines() {
            let line = line.context("read what tcpdump says")?;
            if line.contains("listening on") {
                return Ok(Self { tcpdump, file });
            }
            said = line;
        }
        tcpdump.wait().context("wait for tcpdump")?;
        bail!("tcpdump does not listen on {link}: {said}")
    }

    /// Waits until `enough` holds of the captured packets that went to the tunnel's port, ends the capture, and gives
    /// them.
    pub fn finish(mut self, enough: impl Fn(&[TunnelPacket]) -> bool) -> Result<Vec<TunnelPacket>> {
        let packets = eventually(Duration::from_secs(5), "the packets in tcpdump's file", || {
            let packets = self.packets().map_err(|error| format!("{error:#}"))?;
            if enough(&packets) { Ok(packets) } else { Err(format!("{packets:#?}")) }
        })?;
        self.end()?;
        Ok(packets)
    }

    /// Ends the capture after a moment in which `tcpdump` writes what it has, and gives the bytes of each direction of each
    /// TCP connection in the order in which they were sent.
    pub fn finish_streams(mut self) -> Result<Vec<Stream>> {
        thread::sleep(Duration::from_millis(500));
        self.end()?;
        let mut streams: Vec<Stream> = Vec::new();
        for frame in frames(&self.read()?) {
            let Some((from, to, segment)) = segment(frame) else { continue };
            let known = streams.iter_mut().find(|stream| (stream.from, stream.to) == (from, to));
            match known {
                Some(stream) => stream.take(segment),
                None => {
                    let mut stream = Stream { from, to, bytes: Vec::new(), next: segment.sequence };
                    stream.take(segment);
                    streams.push(stream);
                }
            }
        }
        Ok(streams)
    }

    fn end(&mut self) -> Result<()> {
        self.tcpdump.kill().context("end tcpdump")?;
        self.tcpdump.wait().context("wait for tcpdump")?;
        Ok(())
    }

    fn packets(&self) -> Result<Vec<TunnelPacket>> {
        Ok(frames(&self.read()?).iter().filter_map(|frame| decode(frame)).collect())
    }

    fn read(&self) -> Result<Vec<u8>> {
        fs::read(&self.file).with_context(|| format!("read {}", self.file.display()))
    }
}

/// One direction of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub bytes: Vec<u8>,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct Segment<'a> {
    sequence: u32,
    payload: &'a [u8],
}

impl Stream {
    /// What was there before is no news; what has overtaken something else does not happen on one link.
    fn take(&mut self, segment: Segment) {
        let known = self.next.wrapping_sub(segment.sequence);
        let known = if known > u32::MAX / 2 { 0 } else { usize::try_from(known).unwrap_or(usize::MAX) };
        let Some(new) = segment.payload.get(known..).filter(|new| !new.is_empty()) else { return };
        self.bytes.extend(new);
        self.next = segment.sequence.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0));
    }
}

fn segment(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, Segment<'_>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (from, to) = addresses(&packet)?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    // A SYN has a number and no byte.
    let sequence = tcp.sequence_number().wrapping_add(tcp.syn().into());
    let segment = Segment { sequence, payload: tcp.payload() };
    Some((SocketAddrV4::new(from, tcp.source_port()), SocketAddrV4::new(to, tcp.destination_port()), segment))
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.tcpdump.kill().ok();
        self.tcpdump.wait().ok();
    }
}

/// The whole frames of a capture file in the byte order of this machine.
fn frames(capture: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = capture.get(FILE_HEADER..).unwrap_or_default();
    while let Some((frame, after)) = first_frame(rest) {
        frames.push(frame);
        rest = after;
    }
    frames
}

fn first_frame(packets: &[u8]) -> Option<(&[u8], &[u8])> {
    let length: [u8; 4] = packets.get(8..12)?.try_into().ok()?;
    let length = usize::try_from(u32::from_ne_bytes(length)).ok()?;
    let frame = packets.get(PACKET_HEADER..)?;
    frame.split_at_checked(length)
}

fn decode(frame: &[u8]) -> Option<TunnelPacket> {
    let outer = SlicedPacket::from_ethernet(frame).ok()?;
    let (outer_source, outer_destination) = addresses(&outer)?;
    let Some(TransportSlice::Udp(udp)) = &outer.transport else { return None };
    // An IP packet begins with its version, a VXLAN header with its flag.
    let is_vx = udp.payload().first() == Some(&0x08);
    let inner = if is_vx {
        SlicedPacket::from_ethernet(udp.payload().get(8..)?).ok()?
    } else {
        SlicedPacket::from_ip(udp.payload()).ok()?
    };
    let (inner_source, inner_destination) = addresses(&inner)?;
    let inner_transport = match &inner.transport {
        Some(TransportSlice::Tcp(tcp)) => format!("TCP {} > {}", tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => format!("UDP {} > {}", udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(_)) => "ICMP".to_owned(),
        _ => "?".to_owned(),
    };
    (udp.destination_port() == protocol::port::TUNNEL).then(|| TunnelPacket {
        outer_source: SocketAddrV4::new(outer_source, udp.source_port()),
        outer_destination: SocketAddrV4::new(outer_destination, udp.destination_port()),
        is_vx,
        inner_source,
        inner_destination,
        inner_transport,
    })
}

fn addresses(packet: &SlicedPacket<'_>) -> Option<(Ipv4Addr, Ipv4Addr)> {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => Some((ip.header().source_addr(), ip.header().destination_addr())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Segment, Stream, decode};

    const CAPTURED: &str = include_str!("../fixtures/oakestra-packets.txt");

    #[test]
    fn what_was_sent_twice_is_in_a_stream_once() {
        let address = "192.0.2.1:1".parse().unwrap();
        let mut stream = Stream { from: address, to: address, bytes: Vec::new(), next: u32::MAX };
        let before = u32::MAX - 2;
        for (sequence, payload) in
            [(u32::MAX, "ab"), (u32::MAX, "ab"), (1, ""), (0, "bc"), (before, "..abcde"), (4, "f")]
        {
            stream.take(Segment { sequence, payload: payload.as_bytes() });
        }
        assert_eq!(stream.bytes, b"abcdef");
    }

    /// The first packet of Oakestra's own capture: the client's SYN to a server on another node.
    #[test]
    fn a_packet_of_oakestras_tunnel_is_decoded() {
        let digits: String = CAPTURED
            .lines()
            .skip_while(|line| !line.starts_with("hex"))
            .skip(1)
            .take_while(|line| !line.is_empty())
            .collect();
        let bytes = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        let frame: Vec<u8> = [[0; 12].as_slice(), &[0x08, 0x00]].concat().into_iter().chain(bytes).collect();
        assert_eq!(
            decode(&frame).unwrap().to_string(),
            "UDP 192.0.2.1:41232 > 192.0.2.2:50103  [ 10.30.11.10 > 10.18.2.2  TCP 55854 > 9000 ]"
        );
    }
}
