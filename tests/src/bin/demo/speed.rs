//! One TCP stream through the overlay, compared with plain routing between the same two containers.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::Result;
use integration::throughput::{PlainRoute, measure};
use integration::{Lab, System, interrupt};

use crate::tour::Tour;

const ROUNDS: usize = 3;
const DURATION: Duration = Duration::from_secs(2);
const PORT: u16 = 9000;

pub(crate) fn compare(lab: &Lab, system: &System, tour: &mut Tour) -> Result<()> {
    tour.step("One TCP stream by ServiceIP, and by plain routing between the same nodes, in turn")?;
    let server = system.remote_server()?;
    let client = &system.client;
    let plain =
        PlainRoute::make(lab, (client.worker, &client.container), (server.worker, &server.container))?;
    let servers = [&server.container];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        interrupt::check()?;
        for (rates, address) in rates.iter_mut().zip([server.instance_ip, plain.target()]) {
            rates.push(measure(&client.container, &servers, SocketAddrV4::new(address, PORT), DURATION)?);
        }
    }
    let [service, routed] = rates.map(median);
    tour.say(format!("by ServiceIP {}   {service:.2} Gbit/s", server.instance_ip));
    tour.say(format!("plain routing  {}   {routed:.2} Gbit/s", plain.target()));
    tour.say(format!(
        "ratio {:.2}   (medians of {ROUNDS} rounds of {} s)",
        service / routed,
        DURATION.as_secs()
    ));
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
