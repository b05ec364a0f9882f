//! The answer to the made packet: whether it would come back to who has asked.

use std::net::{IpAddr, SocketAddr};

use super::packet::{self, Ends, Part, Seen};
use super::{Chosen, Mark, Question, Step, Trial};
use crate::datapath::{DatapathError, Outcome, Verdict};

const NAME: &str = "way back";

/// Runs the answer through all that it would meet on this node. `sent` are the ends of the packet as its sender
/// wrote them, `arrived` as the receiver sees them.
pub(super) fn ask(
    trial: &mut impl Trial,
    question: &Question,
    sent: Ends,
    arrived: Ends,
    chosen: Option<&Chosen>,
    seen: &Seen,
) -> Result<Step, DatapathError> {
    let step = |mark, detail: String| Step { name: NAME.into(), detail, mark };
    let answer = match seen {
        // On another node the answer is translated there, and arrives from the instance's own address.
        Seen::Tunnelled { outer, .. } => {
            let from = if arrived == sent { arrived.destination.ip() } else { own_address(chosen, arrived) };
            let inner =
                Ends { source: SocketAddr::new(from, arrived.destination.port()), destination: sent.source };
            let Some(node) = trial.node()? else {
                return Ok(step(Mark::Failed, "this node is not set up".to_owned()));
            };
            let packet = packet::ip(&inner, question.transport, Part::Answer);
            let outer = Ends {
                source: outer.destination,
                destination: SocketAddr::new(outer.source.ip(), node.tunnel_port),
            };
            let frame = packet.and_then(|packet| packet::tunnelled(&outer, &packet));
            match frame {
                Some(frame) => trial.arrives(node.uplink_ifindex, &frame)?,
                None => return Ok(step(Mark::Unknown, "no answer could be made".to_owned())),
            }
        }
        _ => {
            let receiver = arrived.destination.ip();
            let endpoints = trial.endpoints()?;
            let is_receiver = |ns_ip: std::net::Ipv4Addr, ns_ip6: Option<std::net::Ipv6Addr>| match receiver {
                IpAddr::V4(address) => ns_ip == address,
                IpAddr::V6(address) => ns_ip6 == Some(address),
            };
            let Some(endpoint) =
                endpoints.iter().find(|endpoint| is_receiver(endpoint.ns_ip, endpoint.ns_ip6))
            else {
                return Ok(step(Mark::Unknown, "the receiver is not in the table any more".to_owned()));
            };
            let Some(packet) = packet::ip(&arrived.answer(), question.transport, Part::Answer) else {
                return Ok(step(Mark::Unknown, "no answer could be made".to_owned()));
            };
            let frame = packet::frame(endpoint.gateway_mac, endpoint.mac, &packet);
            trial.sends(endpoint.ifindex, &frame)?
        }
    };
    Ok(judge(&answer, sent, question))
}

fn own_address(chosen: Option<&Chosen>, arrived: Ends) -> IpAddr {
    chosen.map_or(arrived.destination.ip(), |chosen| chosen.instance_ip)
}

fn judge(answer: &Outcome, sent: Ends, question: &Question) -> Step {
    let step = |mark, detail: String| Step { name: NAME.into(), detail, mark };
    if let Some(reason) = answer.dropped {
        return step(Mark::Failed, format!("the answer is dropped here: {reason}"));
    }
    if let Some(reason) = answer.given {
        return step(
            Mark::Unknown,
            format!("netmanager gets the answer ({reason}) and asks the cluster first"),
        );
    }
    match packet::read(&answer.frame, |_| false) {
        Seen::Delivered { mac, ends } if answer.verdict == Verdict::Redirected => {
            let home = mac == question.from.mac && ends == sent.answer();
            let detail = format!("the answer comes as {} > {}", ends.source, ends.destination);
            step(if home { Mark::Ok } else { Mark::Failed }, detail)
        }
        _ => step(Mark::Failed, "the answer is not delivered to the sender".to_owned()),
    }
}
