//! Frames with a VLAN tag. `BPF_PROG_TEST_RUN` cannot make them: when a program sees a frame, the kernel has taken
//! the tag out and put it beside.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use integration::{Netns, eventually};
use netmanager::datapath::{DropReason, Policy};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::nodes::{Node, Underlay};
use crate::packet::Transport::Udp;
use crate::packet::{Packet, tunnelled};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The frame in a VLAN.
fn tagged(frame: &[u8], number: u8) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00, 0x00, number], &frame[12..]].concat()
}

/// Sends a frame as it is.
pub(crate) fn send(netns: &Netns, interface: &str, frame: &[u8]) {
    let sent = || {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
        // SAFETY: integers and arrays of them; all zeroes are a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        to.sll_ifindex = if_nametoindex(interface).unwrap().cast_signed();
        let length = u32::try_from(size_of_val(&to)).unwrap();
        // SAFETY: both pointers are valid for the lengths beside them.
        unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                length,
            )
        }
    };
    assert_eq!(netns.run(sent).unwrap(), frame.len().cast_signed(), "{}", std::io::Error::last_os_error());
}

fn assert_drops(node: &Node, expected: &[(DropReason, u64)]) {
    eventually(Duration::from_secs(5), &format!("the drops {expected:?}"), || {
        let drops = node.datapath.counters().unwrap().drops;
        if drops == expected { Ok(()) } else { Err(drops) }
    })
    .unwrap();
}

#[test]
fn a_container_does_not_send_into_vlans() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    let client = node.container(2);
    node.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[])).unwrap();
    let frame = Packet::new(Udp, client.endpoint.ns_ip, SERVICE).sent_by(&client.endpoint);
    // Without a number, too: that tag also would be sent on.
    for (number, drops) in [(5, 1), (0, 2)] {
        send(&client.netns, "eth0", &tagged(&frame, number));
        assert_drops(node, &[(DropReason::VlanTag, drops)]);
    }
    send(&client.netns, "eth0", &frame);
    assert_drops(node, &[(DropReason::VlanTag, 2), (DropReason::NoBackend, 1)]);
}

#[test]
fn a_vlan_of_the_uplink_has_no_way_into_the_tunnel() {
    let underlay = Underlay::new(2);
    let [receiver, sender] = underlay.nodes.as_slice() else { panic!("two nodes") };
    let frame = tunnelled(OTHER_NODE, b"hello, is this DNS?");
    send(&sender.netns, "up0", &tagged(&frame, 5));
    // The next ones are taken, and are rubbish: a tag without a number says a priority and no VLAN.
    send(&sender.netns, "up0", &frame);
    assert_drops(receiver, &[(DropReason::Malformed, 1)]);
    send(&sender.netns, "up0", &tagged(&frame, 0));
    assert_drops(receiver, &[(DropReason::Malformed, 2)]);
}
