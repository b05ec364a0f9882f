//! What the daemons say to each other: for one deployment, and while nothing happens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::application::Application;
use integration::capture::{Capture, Stream};
use integration::lab::{Lab, UPLINK};
use protocol::port;
use protocol::topic::NodeTopic;

use crate::deploying;
use crate::figure::{Figures, What};
use crate::idle::sleep;

/// Until all that a deployment leads to has been said.
const AFTERWARDS: Duration = Duration::from_secs(3);
const DAY: f64 = 24.0 * 3600.0;
const MINUTE: f64 = 60.0;
/// MQTT's number of the packet that carries a message.
const PUBLISH: u8 = 3;

/// Counts the messages to and from workers for one more instance, and to take it back, and tells which they were the last
/// time. Leaves the service with one.
pub(crate) fn deployments(
    lab: &Lab,
    application: &Application,
    rounds: u32,
    tell: impl Fn(&str),
    figures: &mut Figures,
) -> Result<()> {
    for round in 1..=rounds {
        for (what, instances) in [(What::Messages, 2), (What::MessagesBack, 1)] {
            sleep(AFTERWARDS)?;
            let capture = workers_and_cluster(lab)?;
            application.scale(lab, instances)?;
            deploying::until_there_are(lab, application, instances)?;
            sleep(AFTERWARDS)?;
            let mut messages: BTreeMap<String, u32> = BTreeMap::new();
            for stream in capture.finish_streams()? {
                for topic in topics(&stream.bytes)?.into_iter().filter(|topic| !is_of_every_day(topic)) {
                    *messages.entry(kind(topic)).or_default() += 1;
                }
            }
            figures.add(what, messages.values().sum::<u32>().into());
            if round == rounds {
                let listed: Vec<_> =
                    messages.iter().map(|(topic, count)| format!("{count} {topic}")).collect();
                tell(&format!("  for {instances}: {}", listed.join(", ")));
            }
        }
    }
    Ok(())
}

/// Counts the bytes of all conversations of an idle system, of TCP's payload in both directions.
pub(crate) fn idle(lab: &Lab, duration: Duration, figures: &mut Figures) -> Result<()> {
    let begun = Instant::now();
    let (workers, root) = (workers_and_cluster(lab)?, cluster_and_root(lab)?);
    sleep(duration)?;
    let seconds = begun.elapsed().as_secs_f64();
    let (workers, root) = (workers.finish_streams()?, root.finish_streams()?);
    for worker in &lab.workers {
        let own = workers.iter().filter(|it| [it.from.ip(), it.to.ip()].contains(&&worker.address));
        figures.add(What::WorkerTalk, bytes(own) / 1e6 / seconds * DAY);
    }
    figures.add(What::ClusterTalk, bytes(root.iter()) / 1e3 / seconds * MINUTE);
    Ok(())
}

fn workers_and_cluster(lab: &Lab) -> Result<Capture> {
    capture(lab, "mqtt", &format!("tcp port {}", port::CLUSTER_MQTT))
}

fn cluster_and_root(lab: &Lab) -> Result<Capture> {
    let ports = [port::ROOT_API, port::ROOT_NET_API, port::ROOT_GRPC].map(|port| format!("port {port}"));
    capture(lab, "root", &format!("tcp and ({})", ports.join(" or ")))
}

/// At the cluster.
fn capture(lab: &Lab, name: &str, filter: &str) -> Result<Capture> {
    let file = lab.folder().join(format!("{name}.pcap"));
    Capture::start(&lab.control.cluster_netns, UPLINK, filter, file)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn bytes<'a>(streams: impl Iterator<Item = &'a Stream>) -> f64 {
    streams.map(|stream| stream.bytes.len()).sum::<usize>() as f64
}

/// A topic without the name of a node or service in it.
fn kind(topic: &str) -> String {
    match NodeTopic::parse(topic) {
        Some((_, topic)) => topic.suffix().to_owned(),
        None => topic.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// Whether it is said now and then without anything happening.
fn is_of_every_day(topic: &str) -> bool {
    matches!(NodeTopic::parse(topic), Some((_, NodeTopic::Alive | NodeTopic::Information)))
}

/// The topics of the messages in a stream of MQTT packets, which begins with the first byte of one.
fn topics(stream: &[u8]) -> Result<Vec<&str>> {
    let mut topics = Vec::new();
    let mut rest = stream;
    while let Some((kind, packet, after)) = first_packet(rest) {
        if kind == PUBLISH {
            let length = packet.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
            let topic =
                length.and_then(|length| packet.get(2..2 + length)).context("a message without topic")?;
            topics.push(std::str::from_utf8(topic).context("a topic that is no text")?);
        }
        rest = after;
    }
    Ok(topics)
}

/// The kind of the first packet, what is behind its header, and what is behind it (MQTT 3.1.1, 2.2).
fn first_packet(stream: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, mut rest) = stream.split_first()?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let (byte, after) = rest.split_first()?;
        length |= usize::from(byte & 0x7f) << shift;
        rest = after;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (packet, after) = rest.split_at_checked(length)?;
    Some((first >> 4, packet, after))
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn the_messages_among_packets_are_found_by_their_topics() {
        let ping: &[u8] = &[0xc0, 0];
        let short: &[u8] = &[0x30, 5, 0, 1, b'a', b'x', b'y'];
        let long = [&[0x32, 0x85, 1, 0, 1, b'b'][..], &[0; 130]].concat();
        let stream = [ping, short, &long, ping, short].concat();
        assert_eq!(topics(&stream).unwrap(), ["a", "b", "a"]);
        assert_eq!(topics(&stream[..stream.len() - 1]).unwrap(), ["a", "b"], "the last one is cut");
        assert!(topics(&[0x30, 1, 0]).is_err());
    }
}
