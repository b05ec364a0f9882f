//! The benchmark itself, for so short that its numbers mean nothing: does it measure what it says, and leave nothing?

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::footprint::Footprint;
use integration::process::output_within;
use serde_json::Value;

/// What cannot be skipped: all else depends on what is installed.
const ALWAYS: [(&str, &str); 14] = [
    ("superpacket", "plain"),
    ("superpacket", "vxlan"),
    ("superpacket", "hypha-nsip"),
    ("superpacket", "hypha-serviceip"),
    ("superpacket", "hypha-auto"),
    ("wire", "plain"),
    ("wire", "vxlan"),
    ("wire", "hypha-nsip"),
    ("wire", "hypha-serviceip"),
    ("wire", "hypha-xdp"),
    ("wire", "hypha-auto"),
    ("wire", "script"),
    ("same-node", "plain"),
    ("same-node", "hypha-serviceip"),
];
const EVERYWHERE: [(&str, &str); 9] = [
    ("tcp-1", "throughput"),
    ("tcp-1", "cpu-per-gigabyte"),
    ("tcp-4", "throughput"),
    ("rr-tcp", "p50"),
    ("rr-tcp", "p999"),
    ("rr-udp", "p99"),
    ("crr", "connection-rate"),
    ("udp-64", "packet-rate"),
    ("udp-1024", "packet-rate"),
];

/// Another system, which happens to be plain routing.
const ROUTE: &str = r#"#!/bin/sh -e
if [ "$UNDERLAY" != same-node ]; then
    nsenter --net="$NODE1" ip route add "$SERVER_SUBNET" via "$NODE2_ADDRESS"
    nsenter --net="$NODE2" ip route add "$CLIENT_SUBNET" via "$NODE1_ADDRESS"
fi
echo "$SERVER_ADDRESS"
exec sleep infinity
"#;

#[test]
fn a_benchmark_measures_every_variant_and_leaves_nothing_behind() -> Result<()> {
    let before = Footprint::take()?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let script = folder.path().join("route.sh");
    fs::write(&script, ROUTE).context("write a script")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755)).context("make a script executable")?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.arg("--tiny").arg("--check").arg("--out").arg(folder.path());
    bench.arg(format!("--extra=script={}", script.display()));
    let shown = output_within(&mut bench, Duration::from_secs(300))?;

    let text = fs::read_to_string(folder.path().join("results.json")).context("read results.json")?;
    let results: Value = serde_json::from_str(&text).context("understand results.json")?;
    assert_eq!(results["failed"], Value::Array(Vec::new()));
    let samples = results["samples"].as_array().context("samples")?;
    let value = |underlay: &str, variant: &str, measure: &str, quantity: &str| {
        samples.iter().find_map(|sample| {
            let is = |key: &str, expected: &str| sample[key] == expected;
            let found = is("underlay", underlay)
                && is("variant", variant)
                && is("measure", measure)
                && is("quantity", quantity);
            found.then(|| sample["value"].as_f64()).flatten()
        })
    };
    for (underlay, variant) in ALWAYS {
        for (measure, quantity) in EVERYWHERE {
            let value = value(underlay, variant, measure, quantity);
            let value = value.with_context(|| format!("{measure} {quantity} of {variant} on {underlay}"))?;
            assert!(
                value > 0.0 && value.is_finite(),
                "{measure} {quantity} of {variant} on {underlay}: {value}"
            );
        }
    }
    for (measure, quantity) in [
        ("services-10000", "connection-rate"),
        ("instances-64", "connection-rate"),
        ("flows-1000", "connection-rate"),
        ("first-packet", "p50"),
        ("memory", "memory"),
    ] {
        let value = value("superpacket", "hypha-serviceip", measure, quantity);
        assert!(value.is_some_and(|value| value > 0.0), "{measure} {quantity}: {value:?}");
    }
    for key in ["kernel", "cpu"] {
        assert!(
            results["machine"][key].as_str().is_some_and(|text| !text.is_empty()),
            "{}",
            results["machine"]
        );
    }
    assert!(results["offloads"]["wire"].as_array().is_some_and(|lines| !lines.is_empty()));

    let report = fs::read_to_string(folder.path().join("report.md")).context("read report.md")?;
    for (underlay, row) in
        [("## Wire", "| TCP, 4 streams | Gbit/s |"), ("## Same node", "| TCP, 1 stream | Gbit/s |")]
    {
        let section = report.split_once(underlay).map(|(_, section)| section).context(underlay)?;
        assert!(section.contains(row), "{section}");
    }
    for plot in [
        "throughput-wire",
        "latency-superpacket",
        "packets-same-node",
        "distribution-rr-tcp-wire",
        "connections-by-flows",
    ] {
        let svg = fs::read_to_string(folder.path().join(format!("{plot}.svg"))).context(plot)?;
        assert!(svg.starts_with("<svg") && svg.contains("hypha-serviceip"), "{plot}.svg");
        let png = fs::read(folder.path().join(format!("{plot}.png"))).context(plot)?;
        assert!(png.starts_with(b"\x89PNG\r\n") && png.len() > 5000, "{plot}.png: {} bytes", png.len());
    }
    assert!(shown.contains("close to no overlay"), "{shown}");
    let after = Footprint::take()?;
    assert_eq!(after.since(&before), Vec::<&_>::new());
    Ok(())
}

/// What takes at least seconds is measured in a run of its own.
#[test]
fn others_tools_and_the_daemon_itself_are_measured_too() -> Result<()> {
    let before = Footprint::take()?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.arg("--tiny").arg("--out").arg(folder.path());
    bench.args(["--only", "superpacket,plain,geneve,ipip,hypha-serviceip,iperf3-4,netmanager-memory"]);
    output_within(&mut bench, Duration::from_secs(300))?;
    let text = fs::read_to_string(folder.path().join("results.json")).context("read results.json")?;
    let results: Value = serde_json::from_str(&text).context("understand results.json")?;
    assert_eq!(results["failed"], Value::Array(Vec::new()));
    let samples = results["samples"].as_array().context("samples")?;
    let value = |variant: &str, measure: &str| {
        let is = |sample: &&Value| sample["variant"] == variant && sample["measure"] == measure;
        let value = samples.iter().find(is).and_then(|sample| sample["value"].as_f64());
        value.with_context(|| format!("{measure} of {variant}: {samples:?}"))
    };
    for variant in ["plain", "hypha-serviceip"] {
        assert!(value(variant, "iperf3-4")? > 0.0);
    }
    let memory =
        ["netmanager-memory-0", "netmanager-memory-5000"].map(|measure| value("hypha-serviceip", measure));
    let [none, many] = memory;
    let (none, many) = (none?, many?);
    assert!(0.0 < none && none < many, "{none} {many}");
    // Not every kernel has these; it is said of those that it lacks.
    for variant in ["geneve", "ipip"] {
        let skipped = results["skipped"].as_array().context("skipped")?;
        let is_skipped = skipped.iter().any(|skipped| skipped["variant"] == variant);
        assert!(is_skipped || value(variant, "iperf3-4")? > 0.0, "{variant}");
    }
    let after = Footprint::take()?;
    assert_eq!(after.since(&before), Vec::<&_>::new());
    Ok(())
}
