//! Deploying, and talking through the addresses.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::application::{Application, document};
use integration::capture::{Capture, TunnelPacket};
use integration::download::Download;
use integration::system::Instance;
use integration::throughput::measure;
use integration::{Lab, Netns, System, eventually, image};
use serde_json::{Value, json};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[
    ("each_instance_answers_in_turn", each_instance_answers_in_turn),
    (
        "an_instance_address_is_answered_by_its_instance_only",
        an_instance_address_is_answered_by_its_instance_only,
    ),
    ("the_first_connections_of_a_client_lose_no_packet", the_first_connections_of_a_client_lose_no_packet),
    ("processes_of_each_worker_reach_each_instance", processes_of_each_worker_reach_each_instance),
    ("echo_requests_to_service_addresses_are_answered", echo_requests_to_service_addresses_are_answered),
    (
        "the_wire_carries_the_inner_packet_in_udp_as_both_nodes_know_it",
        the_wire_carries_the_inner_packet_in_udp_as_both_nodes_know_it,
    ),
    (
        "a_service_without_instances_is_reached_as_soon_as_it_has_one",
        a_service_without_instances_is_reached_as_soon_as_it_has_one,
    ),
    ("scaling_changes_who_answers", scaling_changes_who_answers),
    (
        "new_connections_go_where_the_fewest_are_for_as_long_as_a_service_asks_for_it",
        new_connections_go_where_the_fewest_are_for_as_long_as_a_service_asks_for_it,
    ),
    (
        "a_download_from_an_instance_that_is_stopped_comes_to_its_end",
        a_download_from_an_instance_that_is_stopped_comes_to_its_end,
    ),
    ("no_process_touches_the_packets_of_a_warm_flow", no_process_touches_the_packets_of_a_warm_flow),
    ("a_missing_image_fails_with_a_reason", a_missing_image_fails_with_a_reason),
];

fn each_instance_answers_in_turn(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "turn", 3)?;
    let system = application.system(lab, 3)?;
    system.wait_for_all_answers()?;
    let (first, second) = (system.answers(3)?, system.answers(3)?);
    ensure!(first == second, "{first:?}, then {second:?}");
    let mut seen = first;
    seen.sort();
    ensure!(seen == system.host_names(), "{seen:?} of {:?}", system.host_names());
    application.remove(lab)
}

fn an_instance_address_is_answered_by_its_instance_only(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "one", 3)?;
    let system = application.system(lab, 3)?;
    // One of the three is on the client's own node: both ways of delivery are taken.
    for instance in system.instances.iter().chain(&system.instances) {
        let answer = system.client.container.get(instance.instance_ip)?;
        let expected = format!("{} answers {}", instance.host_name, system.client.instance_ip);
        ensure!(answer.trim_end() == expected, "{answer:?} instead of {expected:?}");
    }
    application.remove(lab)
}

/// Neither the client's node knows the service nor the servers' nodes the client: all packets wait for the tables.
fn the_first_connections_of_a_client_lose_no_packet(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "held", 3)?;
    let system = application.system(lab, 3)?;
    for address in [system.service_ip, system.remote_server()?.instance_ip] {
        system.client.container.get(address)?;
    }
    for instance in system.instances.iter().chain([&system.client]) {
        let again = instance.container.retransmitted()?;
        ensure!(again == 0, "{} has sent {again} segments again", instance.host_name);
    }
    application.remove(lab)
}

/// What a process in this namespace gets from there by HTTP.
pub(crate) fn fetch(netns: &Netns, address: Ipv4Addr) -> Result<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let target = SocketAddr::from((address, 80));
    let connected = netns.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
    let mut stream = connected.with_context(|| format!("connect to {target} from {}", netns.name()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// On the worker itself, in no container.
fn processes_of_each_worker_reach_each_instance(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "own", 3)?;
    let system = application.system(lab, 3)?;
    for worker in &lab.workers {
        for instance in &system.instances {
            let answer = fetch(&worker.netns, instance.instance_ip)?;
            // As any container of the worker's block is seen, by its NsIP.
            let expected = format!("{} answers 10.", instance.host_name);
            ensure!(answer.contains(&expected), "{}: {answer:?} instead of {expected:?}", worker.name);
        }
        fetch(&worker.netns, system.service_ip)?;
    }
    application.remove(lab)
}

fn echo_requests_to_service_addresses_are_answered(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "echo", 2)?;
    let system = application.system(lab, 2)?;
    system.wait_for_all_answers()?;
    let addresses = system.instances.iter().map(|instance| instance.instance_ip).chain([system.service_ip]);
    for address in addresses {
        system.client.container.ping(address)?;
    }
    application.remove(lab)
}

fn the_wire_carries_the_inner_packet_in_udp_as_both_nodes_know_it(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "wire", 3)?;
    let system = application.system(lab, 3)?;
    let (client, server) = (&system.client, system.remote_server()?);
    client.container.get(server.instance_ip)?;
    let capture = Capture::start(
        &lab.underlay.netns,
        &lab.workers[client.worker].name,
        &format!("udp port {}", protocol::port::TUNNEL),
        lab.folder().join("wire.pcap"),
    )?;
    client.container.get(server.instance_ip)?;
    let count = |packets: &[TunnelPacket], from, to| {
        packets.iter().filter(|packet| (packet.inner_source, packet.inner_destination) == (from, to)).count()
    };
    let requests = |packets: &[TunnelPacket]| count(packets, client.instance_ip, server.ns_ip);
    let replies = |packets: &[TunnelPacket]| count(packets, server.instance_ip, client.ns_ip);
    let packets = capture.finish(|packets| requests(packets) >= 4 && replies(packets) >= 3)?;
    ensure!(requests(&packets) + replies(&packets) == packets.len(), "{packets:#?}");
    // Super-packets cross this underlay whole, so that nothing is to be merged.
    ensure!(packets.iter().all(|packet| !packet.is_vx), "{packets:#?}");
    application.remove(lab)
}

fn a_service_without_instances_is_reached_as_soon_as_it_has_one(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "first", 1)?;
    application.system(lab, 1)?.wait_for_all_answers()?;
    application.scale(lab, 0)?;
    let system = application.system(lab, 0)?;
    let answer = system.client.container.get(system.service_ip);
    ensure!(answer.is_err(), "somebody answers for a service without instances: {answer:?}");
    application.scale(lab, 1)?;
    application.system(lab, 1)?.wait_for_all_answers()?;
    application.remove(lab)
}

fn scaling_changes_who_answers(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "scale", 1)?;
    for servers in [4, 2] {
        application.scale(lab, servers)?;
        application.system(lab, servers)?.wait_for_all_answers()?;
    }
    application.remove(lab)
}

fn new_connections_go_where_the_fewest_are_for_as_long_as_a_service_asks_for_it(lab: &mut Lab) -> Result<()> {
    let least = |[web, _]: [&mut Value; 2]| web["balancing"] = json!("least_connections");
    let application = Application::deploy_with(lab, "least", 3, least)?;
    let system = application.system(lab, 3)?;
    system.wait_for_all_answers()?;
    let hold = || -> Result<TcpStream> {
        let target = SocketAddr::from((system.service_ip, 80));
        let connected = system.client.container.netns.run(|| TcpStream::connect(target))?;
        connected.context("connect as the client")
    };
    let held = [hold()?, hold()?];
    let mut seen = system.answers(6)?;
    seen.sort();
    seen.dedup();
    ensure!(seen.len() == 1, "two instances have a connection each, and yet all of {seen:?} answer");
    drop(held);
    // With as many connections each, all have their turn.
    system.wait_for_all_answers()?;
    application.describe_anew(lab, 3)?;
    let _held = [hold()?, hold()?];
    system.wait_for_all_answers()?;
    application.remove(lab)
}

/// By the service's address and by each instance's own.
fn a_download_from_an_instance_that_is_stopped_comes_to_its_end(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy_with(lab, "end", 2, |[web, _]| finish_when_told_to_stop(web))?;
    let system = application.system(lab, 2)?;
    system.wait_for_all_answers()?;
    let by_own = system.instances.iter().map(|instance| instance.instance_ip);
    let addresses: Vec<_> = by_own.chain([system.service_ip, system.service_ip]).collect();
    come_to_their_end(&system, &addresses, || application.scale(lab, 1))?;
    application.system(lab, 1)?.wait_for_all_answers()?;
    application.remove(lab)
}

/// Lets a server finish what it does, as servers for production do; no server in the image is one.
pub(crate) fn finish_when_told_to_stop(web: &mut Value) {
    let script = "trap 'while pidof stream >/dev/null; do usleep 100000; done; usleep 500000; exit' TERM; \
                  /bin/httpd -f -p 80 -h /www & wait";
    web["cmd"] = json!(["/bin/sh", "-c", script]);
}

/// Downloads from these addresses, and stops servers in the middle.
pub(crate) fn come_to_their_end(
    system: &System,
    addresses: &[Ipv4Addr],
    stop: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let downloads = addresses.iter().map(|address| {
        Download::start(&system.client.container, &format!("http://{address}{}", image::STREAM_PATH))
    });
    let downloads = downloads.collect::<Result<Vec<_>>>()?;
    let whole = image::stream();
    for download in &downloads {
        // What is left takes less time than an instance gets to end.
        let half = || if download.bytes() > whole.len() / 2 { Ok(()) } else { Err(download.bytes()) };
        eventually(Duration::from_secs(30), "half of a download", half)?;
    }
    stop()?;
    let contents = downloads.into_iter().map(Download::finish).collect::<Result<Vec<_>>>()?;
    for (address, content) in addresses.iter().zip(contents) {
        ensure!(content == whole, "{} bytes of {} from {address}", content.len(), whole.len());
    }
    Ok(())
}

/// The kernel counts the packets; meanwhile netmanager, the only process that could see them, does not work.
fn no_process_touches_the_packets_of_a_warm_flow(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "warm", 3)?;
    let system = application.system(lab, 3)?;
    let (client, server) = (&system.client, system.remote_server()?);
    client.container.get(server.instance_ip)?;
    let seen = |lab: &Lab| -> Result<[(u64, u64); 2]> {
        let of = |instance: &Instance| -> Result<(u64, u64)> {
            let worker = &lab.workers[instance.worker];
            Ok((carried(&worker.network_status()?, instance)?, user_ticks(worker.netmanager.pid())?))
        };
        Ok([of(client)?, of(server)?])
    };
    let before = seen(lab)?;
    let target = SocketAddrV4::new(server.instance_ip, 9000);
    measure(&client.container, &[&server.container], target, Duration::from_secs(2))?;
    let after = seen(lab)?;
    for ((bytes_before, ticks_before), (bytes_after, ticks_after)) in before.into_iter().zip(after) {
        let (bytes, ticks) = (bytes_after - bytes_before, ticks_after - ticks_before);
        ensure!(bytes > 50_000_000, "only {bytes} bytes were carried");
        // Hundredths of a second. Its heartbeats may take one or two; all those packets would take hundreds.
        ensure!(ticks <= 10, "netmanager worked for {ticks} ticks while {bytes} bytes were carried");
    }
    application.remove(lab)
}

/// How many bytes the data plane has carried for an instance, both ways.
fn carried(status: &Value, instance: &Instance) -> Result<u64> {
    let endpoints = status["endpoints"].as_array().with_context(|| format!("endpoints in {status}"))?;
    let address = instance.ns_ip.to_string();
    let endpoint = endpoints.iter().find(|endpoint| endpoint["ns_ip"] == address.as_str());
    let endpoint = endpoint.with_context(|| format!("{address} in {status}"))?;
    Ok(["sent_bytes", "received_bytes"].iter().filter_map(|key| endpoint[key].as_u64()).sum())
}

/// Time that a process has spent in user space, in ticks of a hundredth of a second.
fn user_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read a process's times")?;
    let (_, fields) = stat.rsplit_once(')').context("the end of a process's name")?;
    fields.split_whitespace().nth(11).context("a user time")?.parse().context("read a user time")
}

fn a_missing_image_fails_with_a_reason(lab: &mut Lab) -> Result<()> {
    let mut sla = document("missing", 1)?;
    let reference = image::REFERENCE.replace("busybox", "nowhere");
    sla["applications"][0]["microservices"][0]["code"] = json!(reference);
    sla["applications"][0]["microservices"].as_array_mut().context("services")?.truncate(1);
    let file = lab.folder().join("missing.json");
    std::fs::write(&file, sla.to_string()).context("write an SLA")?;
    lab.control.hypha(&["apply", "--no-wait", "-f", &file.display().to_string()])?;
    let api = lab.control.admin()?;
    eventually(
        Duration::from_secs(40),
        "the instance to be FAILED with a reason that names the image",
        || {
            let services = api.get("/api/services/").and_then(integration::api::Answer::ok);
            let services = services.map_err(|error| format!("{error:#}"))?;
            let found = services
                .as_array()
                .into_iter()
                .flatten()
                .filter(|service| service["app_name"] == "missing")
                .flat_map(|service| service["instance_list"].as_array().into_iter().flatten())
                .any(|instance| {
                    let detail = instance["status_detail"].as_str().unwrap_or_default();
                    instance["status"] == "FAILED" && detail.contains("nowhere")
                });
            if found { Ok(()) } else { Err(services.to_string()) }
        },
    )?;
    lab.control.hypha(&["delete", "app/missing", "--yes"]).map(drop)
}
