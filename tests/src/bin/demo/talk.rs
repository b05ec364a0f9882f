//! The client talks to the servers, with the programs of its image.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use integration::capture::{Capture, TunnelPacket};
use integration::{Lab, System};

use crate::tour::Tour;

pub(crate) fn ask_in_turn(system: &System, tour: &mut Tour) -> Result<()> {
    tour.step("Ask the ServiceIP: each instance answers in turn")?;
    let count = system.instances.len();
    tour.say(format!("$ wget -qO- http://{}/    (in {})", system.service_ip, system.client.container.id));
    let mut rounds: Vec<Vec<String>> = Vec::new();
    for _ in 0..2 {
        let mut round = Vec::new();
        for _ in 0..count {
            let answer = system.client.container.get(system.service_ip)?;
            tour.say(answer.trim_end());
            round.push(answer.split(' ').next().unwrap_or_default().to_owned());
        }
        rounds.push(round);
    }
    let everyone: BTreeSet<_> = system.host_names().into_iter().collect();
    let in_turn = rounds.iter().all(|round| round.iter().cloned().collect::<BTreeSet<_>>() == everyone);
    ensure!(in_turn && rounds[0] == rounds[1], "not in turn: {rounds:?}");
    Ok(())
}

pub(crate) fn ask_one_instance(system: &System, tour: &mut Tour) -> Result<()> {
    tour.step("Ask an instance IP: always the same instance answers")?;
    let instance = system.instances.last().context("a web server")?;
    for _ in 0..3 {
        let answer = system.client.container.get(instance.instance_ip)?;
        tour.say(format!("{}: {}", instance.instance_ip, answer.trim_end()));
        ensure!(answer.starts_with(&instance.host_name), "expected {}", instance.host_name);
        ensure!(
            answer.trim_end().ends_with(&format!(" {}", system.client.instance_ip)),
            "expected to be seen as {}",
            system.client.instance_ip
        );
    }
    tour.say(format!("(the servers see the client as {}, its instance IP)", system.client.instance_ip));
    Ok(())
}

pub(crate) fn ping(system: &System, tour: &mut Tour) -> Result<()> {
    tour.step("Ping both addresses")?;
    let instance = system.instances.first().context("a web server")?;
    for address in [system.service_ip, instance.instance_ip] {
        let said = system.client.container.ping(address)?;
        let line = said.lines().find(|line| line.contains("time=")).context("a time in what ping says")?;
        tour.say(format!("{address}: {line}"));
    }
    Ok(())
}

pub(crate) fn look_at_the_wire(lab: &Lab, system: &System, tour: &mut Tour) -> Result<()> {
    tour.step(
        "Look at the wire: the inner packet in UDP, inner source = instance IP, inner destination = NsIP",
    )?;
    let server = system.remote_server()?;
    let (worker, client) = (&lab.workers[system.client.worker], &system.client);
    tour.say(format!(
        "$ tcpdump -i {} udp port {}    (on the underlay)",
        worker.name,
        protocol::port::TUNNEL
    ));
    let capture = Capture::start(
        &lab.underlay.netns,
        &worker.name,
        &format!("udp port {}", protocol::port::TUNNEL),
        lab.folder().join("underlay.pcap"),
    )?;
    client.container.get(server.instance_ip)?;
    let to_server = |packet: &&TunnelPacket| {
        packet.inner_source == client.instance_ip && packet.inner_destination == server.ns_ip
    };
    let to_client = |packet: &&TunnelPacket| {
        packet.inner_source == server.instance_ip && packet.inner_destination == client.ns_ip
    };
    let both = |packets: &[TunnelPacket]| {
        packets.iter().any(|p| to_server(&p)) && packets.iter().any(|p| to_client(&p))
    };
    let packets = capture.finish(both)?;
    for packet in packets.iter().find(to_server).into_iter().chain(packets.iter().find(to_client)) {
        tour.say(packet);
    }
    ensure!(
        packets.iter().all(|packet| to_server(&packet) || to_client(&packet)),
        "others too: {packets:#?}"
    );
    Ok(())
}
