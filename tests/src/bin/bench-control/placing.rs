//! How long it takes to choose among very many workers: the decision alone, as a cluster makes it for each instance.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use orchestrator::schedule::{Placement, Request, Share, Worker, place};
use protocol::constraint::Near;
use protocol::id::Id;

use crate::figure::{Figures, What};

const WORKERS: u32 = 10_000;

pub(crate) fn decide(rounds: u32, figures: &mut Figures) -> Result<()> {
    let workers = (0..WORKERS).map(worker).collect::<Result<Vec<_>>>()?;
    let plain = Request { memory: 100, vcpus: 1, virtualization: "docker".to_owned(), ..Request::default() };
    let location = "48.26,11.67".parse().context("a place")?;
    let near = [None, Some(20.0)].map(|milliseconds| Near { location, kilometres: 2000.0, milliseconds });
    let constrained = Request { near: near.into(), ..plain.clone() };
    for _ in 0..rounds {
        for (what, request, placement) in [
            (What::Placing, &plain, Placement::BestFit),
            (What::PlacingNear, &constrained, Placement::Nearest),
        ] {
            let start = Instant::now();
            let choice = place(black_box(request), black_box(&workers), placement.algorithm());
            figures.add(what, start.elapsed().as_secs_f64() * 1000.0);
            ensure!(choice.chosen.is_some(), "nobody fits: {:?}", choice.decision.rejections);
        }
    }
    Ok(())
}

/// Spread over a continent, and used to all degrees.
fn worker(number: u32) -> Result<Worker> {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let spread = |values: u32, step: u32| f64::from(number.wrapping_mul(step) % values) / f64::from(values);
    let place = format!("{},{}", 36.0 + 30.0 * spread(997, 31), -9.0 + 40.0 * spread(991, 17));
    Ok(Worker {
        id: Id::from_bytes(id),
        host: format!("worker{number}"),
        responding: true,
        cordoned: false,
        vcpus: 4,
        vgpus: 0,
        virtualization: vec!["docker".to_owned()],
        architecture: "arm64".to_owned(),
        drivers: Vec::new(),
        addons: Vec::new(),
        location: Some(place.parse().context("a place")?),
        cpu_percent: 100.0 * spread(101, 7),
        memory_total: 8192,
        memory_available: 1000 + u64::from(number.wrapping_mul(13) % 7000),
        disk_available: Some(20_000),
        disk_promised: 0,
        committed: Share::default(),
        unreported: Share::default(),
        siblings: number % 3,
        reach: Vec::new(),
    })
}
