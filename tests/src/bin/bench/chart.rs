//! Which pictures a run gives, as numbers; [`crate::plot`] draws them.

use crate::measure::{Measure, Quantity};
use crate::results::Results;
use crate::subject::{Underlay, Variant};
use crate::summary::{Key, Spread, Summary};
use crate::table::title;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    /// Of the file, without its ending.
    pub(crate) name: String,
    pub(crate) title: String,
    /// What stands at the vertical axis.
    pub(crate) vertical: String,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Groups of bars, one for each variant, with the rounds' spread.
    Bars { groups: Vec<String>, series: Vec<(Variant, Vec<Option<Spread>>)> },
    /// A line for each variant.
    Lines { horizontal: String, logarithmic: bool, series: Vec<Line> },
}

/// The points of a variant.
pub(crate) type Line = (Variant, Vec<(f64, f64)>);

/// Those for which there are numbers.
pub(crate) fn charts(results: &Results, summary: &Summary) -> Vec<Chart> {
    let mut charts = Vec::new();
    for underlay in Underlay::ALL {
        let bars = [
            ("throughput", "TCP throughput", "Gbit/s", &[Quantity::Throughput][..]),
            ("cpu", "CPU time for a gigabyte, both nodes", "s/GB", &[Quantity::CpuPerGigabyte]),
            ("latency", "Request-response", "us", &[Quantity::P50, Quantity::P99]),
            ("connections", "Connect, request, close", "1/s", &[Quantity::ConnectionRate]),
        ];
        for (name, what, vertical, quantities) in bars {
            let keys: Vec<_> = summary
                .keys_of(underlay)
                .filter(|key| {
                    quantities.contains(&key.quantity)
                        && !key.measure.ends_with("loaded")
                        && !is_of_scale(&key.measure)
                })
                .collect();
            charts.extend(bar_chart(summary, underlay, &keys).map(|content| Chart {
                name: format!("{name}-{}", underlay.id()),
                title: format!("{what}, {}", underlay.id()),
                vertical: vertical.to_owned(),
                content,
            }));
        }
        charts.extend(packet_rates(summary, underlay));
        for transport in ["rr-tcp", "rr-udp"] {
            charts.extend(distribution(results, summary, underlay, transport));
        }
    }
    charts.extend(["services", "instances", "flows"].into_iter().filter_map(|what| scale(summary, what)));
    charts
}

/// What has a chart of its own, or none.
fn is_of_scale(measure: &str) -> bool {
    ["services-", "instances-", "flows-", "first-packet"].iter().any(|name| measure.starts_with(name))
}

/// Connections a second, by how much of something there is.
#[expect(clippy::cast_precision_loss, reason = "counts below a million")]
fn scale(summary: &Summary, what: &str) -> Option<Chart> {
    let underlay = Underlay::Superpacket;
    let line = |variant: &Variant| {
        let points = Measure::ALL.into_iter().filter_map(|measure| {
            let count = match measure {
                Measure::Services { count } if what == "services" => count as usize,
                Measure::Instances { count } if what == "instances" => count.into(),
                Measure::Flows { count } if what == "flows" => count,
                _ => return None,
            };
            let key = Key { underlay, measure: measure.id(), quantity: Quantity::ConnectionRate };
            Some((count as f64, summary.spread(&key, variant)?.median))
        });
        points.collect()
    };
    let series = lines(summary, underlay, line)?;
    Some(Chart {
        name: format!("connections-by-{what}"),
        title: format!("Connect, request, close, by the number of {what}"),
        vertical: "1/s".to_owned(),
        content: Content::Lines { horizontal: what.to_owned(), logarithmic: true, series },
    })
}

fn bar_chart(summary: &Summary, underlay: Underlay, keys: &[&Key]) -> Option<Content> {
    let groups: Vec<_> = keys.iter().map(|key| title(key)).collect();
    let series = summary.variants(underlay).into_iter().map(|variant| {
        let spreads = keys.iter().map(|key| summary.spread(key, &variant)).collect();
        (variant, spreads)
    });
    (!groups.is_empty()).then(|| Content::Bars { groups, series: series.collect() })
}

fn packet_rates(summary: &Summary, underlay: Underlay) -> Option<Chart> {
    let sizes = Measure::ALL.into_iter().filter_map(|measure| match measure {
        Measure::Datagrams { frame } => Some((frame, measure.id())),
        _ => None,
    });
    let sizes: Vec<_> = sizes.collect();
    #[expect(clippy::cast_precision_loss, reason = "the size of a frame")]
    let line = |variant: &Variant| {
        let points = sizes.iter().filter_map(|(frame, measure)| {
            let key = Key { underlay, measure: measure.clone(), quantity: Quantity::PacketRate };
            Some((*frame as f64, summary.spread(&key, variant)?.median))
        });
        points.collect()
    };
    let series = lines(summary, underlay, line)?;
    Some(Chart {
        name: format!("packets-{}", underlay.id()),
        title: format!("UDP packets, {}", underlay.id()),
        vertical: "thousand packets a second".to_owned(),
        content: Content::Lines { horizontal: "bytes of a frame".to_owned(), logarithmic: false, series },
    })
}

/// At each part the median of the rounds.
fn distribution(results: &Results, summary: &Summary, underlay: Underlay, measure: &str) -> Option<Chart> {
    let line = |variant: &Variant| {
        let rounds: Vec<_> = results
            .times
            .iter()
            .filter(|it| it.underlay == underlay && it.variant == *variant && it.measure == measure)
            .collect();
        let points = results.quantiles.iter().enumerate().filter_map(|(index, part)| {
            let values: Vec<f64> =
                rounds.iter().filter_map(|it| it.microseconds.get(index)).copied().collect();
            Some((Spread::of(&values)?.median, part * 100.0))
        });
        points.collect()
    };
    let series = lines(summary, underlay, line)?;
    Some(Chart {
        name: format!("distribution-{measure}-{}", underlay.id()),
        title: format!("Round trips, {measure}, {}", underlay.id()),
        vertical: "percent of all that took at most".to_owned(),
        content: Content::Lines { horizontal: "us".to_owned(), logarithmic: true, series },
    })
}

/// Of the variants that have two points at least.
fn lines(
    summary: &Summary,
    underlay: Underlay,
    line: impl Fn(&Variant) -> Vec<(f64, f64)>,
) -> Option<Vec<Line>> {
    let series: Vec<_> = summary
        .variants(underlay)
        .into_iter()
        .map(|variant| {
            let points = line(&variant);
            (variant, points)
        })
        .filter(|(_, points)| points.len() > 1)
        .collect();
    (!series.is_empty()).then_some(series)
}
