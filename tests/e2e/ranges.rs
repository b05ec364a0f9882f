//! An overlay with other addresses than Oakestra's, where those are somebody else's.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::application::Application;
use integration::netns::connect;
use integration::{Broker, Lab, Machine, Netns, System, Topology};
use protocol::plan::Plan;

use crate::deploy::fetch;
use crate::{ClaimAlone, give_image};

pub(crate) const CLAIMS: &[ClaimAlone] = &[(
    "with_other_addresses_for_the_overlay_containers_reach_services_and_a_lan_that_has_the_usual_ones",
    with_other_addresses_for_the_overlay_containers_reach_services_and_a_lan_that_has_the_usual_ones,
)];

const WORKER_IN_LAN: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 1);
/// Would be a service's.
const PRINTER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 2);
const SAYS: &str = "the printer is ready";

fn with_other_addresses_for_the_overlay_containers_reach_services_and_a_lan_that_has_the_usual_ones(
    machine: &Machine,
) -> Result<()> {
    let plan = Plan::new("172.20.0.0/16".parse()?, "172.24.32.0/20".parse()?)?;
    let mut lab = Lab::start_with(machine, 2, Topology::Split, plan, Broker::Embedded, |_| {})?;
    use_it(&mut lab, plan).map_err(|error| anyhow!("{error:#}\n{}", lab.log_tails()))
}

fn use_it(lab: &mut Lab, plan: Plan) -> Result<()> {
    give_image(lab)?;
    let application = Application::deploy(lab, "elsewhere", 2)?;
    let system = application.system(lab, 2)?;
    ensure!(plan.is_service(system.service_ip.into()), "{} is no service's", system.service_ip);
    for instance in system.instances.iter().chain([&system.client]) {
        let both = (plan.is_service(instance.instance_ip.into()), plan.is_container(instance.ns_ip.into()));
        ensure!(both == (true, true), "{instance:?} has addresses of another plan");
    }
    let worker = &lab.workers[system.client.worker];
    let lan = Netns::new("lan")?;
    connect((&worker.netns, "lan0"), (&lan, "printer"))?;
    worker.netns.ip(&format!("addr add {WORKER_IN_LAN}/16 dev lan0"))?;
    lan.ip(&format!("addr add {PRINTER}/16 dev printer"))?;
    reach_all(lab, &system, &lan).context("with programs in the kernel")?;
    for worker in &mut lab.workers {
        worker.use_datapath("userspace")?;
    }
    reach_all(lab, &system, &lan).context("in user space")?;
    application.remove(lab)
}

fn reach_all(lab: &Lab, system: &System, lan: &Netns) -> Result<()> {
    system.wait_for_all_answers()?;
    for instance in &system.instances {
        system.client.container.get(instance.instance_ip)?;
        for worker in &lab.workers {
            fetch(&worker.netns, instance.instance_ip)?;
        }
    }
    let listener = lan.run(|| TcpListener::bind((PRINTER, 80)))?.context("listen in the LAN")?;
    let printer = thread::spawn(move || serve_once(&listener));
    let said = system.client.container.get(PRINTER)?;
    ensure!(said.contains(SAYS), "{said:?}");
    let seen = printer.join().map_err(|_panic| anyhow!("the printer has panicked"))??;
    ensure!(seen == WORKER_IN_LAN, "the LAN was asked by {seen}");
    Ok(())
}

/// Answers one request, and gives who asked.
fn serve_once(listener: &TcpListener) -> Result<IpAddr> {
    let (mut stream, client) = listener.accept().context("wait for a request")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = [0; 1024];
    let _length = stream.read(&mut request).context("read a request")?;
    write!(stream, "HTTP/1.0 200 OK\r\n\r\n{SAYS}\n").context("answer a request")?;
    Ok(client.ip())
}
