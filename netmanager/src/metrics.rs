//! What a [`Report`] counts, as OpenMetrics text, which Prometheus reads.
//!
//! Labels have few values: reasons, directions, programs, and the containers and peers of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::datapath::{DropReason, Programs};
use crate::net::LeftToNic;
use crate::report::{Drops, Report, SessionState};

/// What the text is, for the answer's header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "hypha_netmanager";

/// How long a program of ours ran and how often. All 0 unless the kernel counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunTime {
    pub program: String,
    pub time: Duration,
    pub runs: u64,
}

/// How long the programs that the report names ran, those of one name together.
#[must_use]
pub fn run_times(report: &Report, programs: &Programs) -> Vec<RunTime> {
    let ours = report.hooks.iter().flat_map(|hook| &hook.attached).filter(|attached| attached.ours);
    let ids: BTreeSet<_> = ours.map(|attached| attached.id).collect();
    let mut sums: BTreeMap<&str, (Duration, u64)> = BTreeMap::new();
    for program in ids.into_iter().filter_map(|id| programs.get(id)) {
        let (time, runs) = sums.entry(&program.name).or_default();
        *time += program.run_time;
        *runs += program.runs;
    }
    sums.into_iter()
        .map(|(program, (time, runs))| RunTime { program: program.to_owned(), time, runs })
        .collect()
}

/// The text of one scrape.
///
/// # Errors
/// Never: writing into a string does not fail.
pub fn encode(report: Report, run_times: Vec<RunTime>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape { report, run_times }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape {
    report: Report,
    run_times: Vec<RunTime>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Writer(&mut encoder);
        self.packets(&mut out)?;
        self.containers(&mut out)?;
        self.tables(&mut out)?;
        self.peers(&mut out)?;
        self.uplinks(&mut out)?;
        self.daemon(&mut out)?;
        self.programs(&mut out)
    }
}

impl Scrape {
    /// Every reason from the start, also with 0: else its first packets would be no increase.
    fn packets(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let by_reason = |counts: &[Drops]| -> Vec<_> {
            let counted =
                |name| counts.iter().find(|count| count.reason == name).map_or(0, |count| count.packets);
            DropReason::ALL
                .iter()
                .map(|reason| ([("reason", reason.name())], counted(reason.name())))
                .collect()
        };
        out.counters(
            "dropped_packets",
            "Packets dropped by the data plane",
            None,
            &by_reason(&self.report.drops),
        )?;
        let help = "Packets given to netmanager, which holds or answers them";
        out.counters("punted_packets", help, None, &by_reason(&self.report.punts))
    }

    fn containers(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let (mut packets, mut bytes) = (Vec::new(), Vec::new());
        let names: Vec<_> =
            self.report.endpoints.iter().map(|endpoint| endpoint.instance.to_string()).collect();
        for (endpoint, name) in self.report.endpoints.iter().zip(&names) {
            let labels = |direction| [("instance_name", name.as_str()), ("direction", direction)];
            packets.push((labels("sent"), endpoint.sent_packets));
            packets.push((labels("received"), endpoint.received_packets));
            bytes.push((labels("sent"), endpoint.sent_bytes));
            bytes.push((labels("received"), endpoint.received_bytes));
        }
        out.counters("container_packets", "IP packets of a container on the overlay", None, &packets)?;
        out.counters("container", "Bytes of IP of a container on the overlay", Some(&Unit::Bytes), &bytes)
    }

    fn tables(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let report = &self.report;
        out.gauge("loaded", "Whether there is a data plane", usize::from(report.mode != "none"))?;
        let modes = ["ebpf", "userspace"].map(|mode| ([("mode", mode)], i64::from(report.mode == mode)));
        out.gauges("datapath", "Which data plane there is", None, &modes)?;
        out.gauge("containers", "Containers that are attached", report.endpoints.len())?;
        out.gauge("services", "Service addresses that are known", report.services.len())?;
        let empty = report.services.iter().filter(|service| service.backends.is_empty()).count();
        out.gauge("services_empty", "Service addresses that no instance is behind", empty)?;
        out.gauge("peers", "Nodes that this one talks to", report.peers.len())?;
        let flows = [("open", report.flows.open), ("closing", report.flows.closing)];
        let flows = flows.map(|(state, count)| ([("state", state)], integer(count)));
        out.gauges("flows", "Connections that the data plane remembers", None, &flows)?;
        let wrong = report.hooks.iter().filter(|hook| hook.times() != 1).count();
        out.gauge("hooks_wrong", "Interfaces where our program is missing, or there twice", wrong)
    }

    /// One without a value is not known.
    fn peers(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let names: Vec<_> = self.report.peers.iter().map(|peer| (peer.node.to_string(), peer)).collect();
        let label = |name: &str| [("node", name.to_owned())];
        let mtus: Vec<_> =
            names.iter().filter_map(|(name, peer)| Some((label(name), i64::from(peer.mtu?)))).collect();
        out.gauges(
            "peer_mtu",
            "The largest packet of a container that gets to a node",
            Some(&Unit::Bytes),
            &mtus,
        )?;
        let seconds = |microseconds| Duration::from_micros(microseconds).as_secs_f64();
        let round_trips: Vec<_> = names
            .iter()
            .filter_map(|(name, peer)| Some((label(name), seconds(peer.round_trip_us?))))
            .collect();
        let help = "The time until a first answer of an instance on a node";
        out.gauges("peer_round_trip", help, Some(&Unit::Seconds), &round_trips)
    }

    fn uplinks(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let unwrapping = &self.report.unwrapping;
        let places: Vec<_> = unwrapping
            .iter()
            .map(|it| ([("interface", it.interface.as_str()), ("place", it.place.as_str())], 1_i64))
            .collect();
        out.gauges("unwrapping", "Where the outer headers of what arrives are taken off", None, &places)?;
        let early: Vec<_> =
            unwrapping.iter().map(|it| ([("interface", it.interface.as_str())], it.early_packets)).collect();
        out.counters("unwrapped_in_driver_packets", "Packets unwrapped by the XDP program", None, &early)
    }

    fn daemon(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let Some(daemon) = &self.report.daemon else { return Ok(()) };
        let up = matches!(daemon.session, SessionState::Up { .. });
        out.gauge("session_up", "Whether the cluster is connected", usize::from(up))?;
        let help = "Whether the daemon forwards packets itself since the kernel did not take the programs";
        out.gauge("datapath_fallback", help, usize::from(daemon.fallback.is_some()))?;
        let help = "Whether containers finish packets themselves since a way lost what was left to the NIC";
        out.gauge("nic_relieved", help, usize::from(daemon.left_to_nic != LeftToNic::All))?;
        out.counters(
            "misses",
            "Addresses that a packet needed and the tables did not have",
            None,
            &[([("", ""); 0], daemon.misses)],
        )?;
        let Some(counts) = &daemon.slow_path else { return Ok(()) };
        let fates = [
            ("held", counts.held),
            ("released", counts.released),
            ("expired", counts.expired),
            ("refused", counts.refused),
            ("answered", counts.answered),
            ("translated", counts.translated),
            ("dropped", counts.dropped),
        ];
        let fates = fates.map(|(fate, count)| ([("fate", fate)], count));
        out.counters("slow_path_packets", "What became of packets on the slow path", None, &fates)
    }

    fn programs(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let counted = || self.run_times.iter().filter(|program| program.runs > 0);
        let label = |program: &RunTime| [("program", program.program.clone())];
        let runs: Vec<_> = counted().map(|program| (label(program), program.runs)).collect();
        let seconds: Vec<_> = counted().map(|program| (label(program), program.time.as_secs_f64())).collect();
        out.counters("program_runs", "Packets that a program has seen", None, &runs)?;
        out.counters("program_run_time", "Time that a program took", Some(&Unit::Seconds), &seconds)
    }
}

/// One metric after another. One without a value is left out.
struct Writer<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    fn counters<L, N>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &[(L, N)],
    ) -> fmt::Result
    where
        L: prometheus_client::encoding::EncodeLabelSet,
        N: Copy,
        ConstCounter<N>: EncodeMetric,
    {
        if values.is_empty() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(*value).encode(metric.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn gauges<L, N>(&mut self, name: &str, help: &str, unit: Option<&Unit>, values: &[(L, N)]) -> fmt::Result
    where
        L: prometheus_client::encoding::EncodeLabelSet,
        N: Copy,
        ConstGauge<N>: EncodeMetric,
    {
        if values.is_empty() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(*value).encode(metric.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(integer(value)).encode(metric)
    }
}

fn integer(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use prometheus_parse::Scrape;
    use serde_json::json;

    use super::{RunTime, encode};
    use crate::datapath::DropReason;
    use crate::report::Report;

    /// Through JSON: a report that an earlier version has made must be readable, too.
    fn report() -> Report {
        let now = SystemTime::now();
        serde_json::from_value(json!({
            "daemon": { "pid": 7, "version": "0", "tunnel": "192.0.2.1:50103", "misses": 3, "fallback": "not permitted", "left_to_nic": "checksums",
                "session": { "state": "up", "since": now },
                "slow_path": { "held": 4, "released": 3, "expired": 1, "refused": 0, "answered": 2, "translated": 0, "dropped": 0 } },
            "node": null, "cluster": null, "subnet": null, "uplink": null, "mode": "ebpf", "attach_mode": "tcx",
            "peers": [
                { "node": "192.0.2.2:50103", "instances": 1 },
                { "node": "192.0.2.3:50103", "instances": 1, "round_trip_us": 2500, "mtu": 1450, "path_mtu": null }
            ],
            "unwrapping": [{ "interface": "up0", "driver": "ice", "place": "xdp", "why": null, "early_packets": 6,
                "no_metadata_packets": 0 }],
            "flows": { "open": 5, "closing": 1 },
            "endpoints": [{ "instance": { "service": "shop.prod.web.prod", "number": 2 }, "ns_ip": "10.18.0.2", "instance_ip": null,
                "link": "hy0", "pid": 1, "ports": [], "sent_packets": 10, "sent_bytes": 1000, "received_packets": 8, "received_bytes": 800 }],
            "services": [{ "address": "10.30.0.4", "service": null, "policy": "round robin", "backends": [] }],
            "drops": [{ "reason": "no-backend", "packets": 9 }], "punts": []
        }))
        .unwrap()
    }

    /// The parser passes over what it does not understand, so its samples are counted.
    fn parse(text: &str) -> Scrape {
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(scrape.samples.len(), lines.count(), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        scrape
    }

    #[test]
    fn the_text_is_what_a_parser_takes() {
        let run_times =
            vec![RunTime { program: "from_uplink".into(), time: Duration::from_millis(1500), runs: 12 }];
        let text = encode(report(), run_times).unwrap();
        let scrape = parse(&text);
        let samples = |name: &str| {
            let name = format!("hypha_netmanager_{name}");
            scrape.samples.iter().filter(|sample| sample.metric == name).count()
        };
        assert_eq!(samples("dropped_packets_total"), DropReason::ALL.len());
        assert_eq!(samples("container_bytes_total"), 2);
        assert_eq!(samples("flows"), 2);
        assert_eq!(samples("peer_mtu_bytes"), 1, "of the other one it is not known");
        for line in [
            r#"hypha_netmanager_dropped_packets_total{reason="no-backend"} 9"#,
            r#"hypha_netmanager_dropped_packets_total{reason="not-ip"} 0"#,
            r#"hypha_netmanager_container_bytes_total{instance_name="shop.prod.web.prod.instance.2",direction="sent"} 1000"#,
            "hypha_netmanager_services_empty 1",
            r#"hypha_netmanager_peer_round_trip_seconds{node="192.0.2.3:50103"} 0.0025"#,
            r#"hypha_netmanager_peer_mtu_bytes{node="192.0.2.3:50103"} 1450"#,
            r#"hypha_netmanager_unwrapping{interface="up0",place="xdp"} 1"#,
            r#"hypha_netmanager_unwrapped_in_driver_packets_total{interface="up0"} 6"#,
            "hypha_netmanager_session_up 1",
            r#"hypha_netmanager_datapath{mode="ebpf"} 1"#,
            r#"hypha_netmanager_datapath{mode="userspace"} 0"#,
            "hypha_netmanager_datapath_fallback 1",
            "hypha_netmanager_nic_relieved 1",
            "hypha_netmanager_misses_total 3",
            r#"hypha_netmanager_slow_path_packets_total{fate="held"} 4"#,
            r#"hypha_netmanager_program_run_time_seconds_total{program="from_uplink"} 1.5"#,
        ] {
            assert!(text.lines().any(|said| said == line), "{line}\n{text}");
        }
    }

    #[test]
    fn without_a_daemon_or_counted_programs_those_are_left_out() {
        let text = encode(Report { daemon: None, ..report() }, Vec::new()).unwrap();
        parse(&text);
        assert!(!text.contains("session_up") && !text.contains("program_runs"), "{text}");
    }
}
