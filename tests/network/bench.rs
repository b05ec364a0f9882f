//! The benchmark itself, for so short that its numbers mean nothing: does it measure what it says, and leave nothing?

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::footprint::Footprint;
use integration::process::output_within;
use serde_json::Value;

/// What cannot be skipped: all else depends on what is installed.
const ALWAYS: [(&str, &str); 10] = [
    ("superpacket", "plain"),
    ("superpacket", "vxlan"),
    ("superpacket", "hypha-nsip"),
    ("superpacket", "hypha-serviceip"),
    ("wire", "plain"),
    ("wire", "vxlan"),
    ("wire", "hypha-nsip"),
    ("wire", "hypha-serviceip"),
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

#[test]
fn a_benchmark_measures_every_variant_and_leaves_nothing_behind() -> Result<()> {
    let before = Footprint::take()?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.arg("--tiny").arg("--check").arg("--out").arg(folder.path());
    let shown = output_within(&mut bench, Duration::from_secs(300))?;

    let text = std::fs::read_to_string(folder.path().join("results.json")).context("read results.json")?;
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
    for key in ["kernel", "cpu"] {
        assert!(
            results["machine"][key].as_str().is_some_and(|text| !text.is_empty()),
            "{}",
            results["machine"]
        );
    }
    assert!(results["offloads"]["wire"].as_array().is_some_and(|lines| !lines.is_empty()));

    let report = std::fs::read_to_string(folder.path().join("report.md")).context("read report.md")?;
    for (underlay, row) in
        [("## Wire", "| TCP, 4 streams | Gbit/s |"), ("## Same node", "| TCP, 1 stream | Gbit/s |")]
    {
        let section = report.split_once(underlay).map(|(_, section)| section).context(underlay)?;
        assert!(section.contains(row), "{section}");
    }
    assert!(shown.contains("close to no overlay"), "{shown}");
    let after = Footprint::take()?;
    assert_eq!(after.since(&before), Vec::<&_>::new());
    Ok(())
}
