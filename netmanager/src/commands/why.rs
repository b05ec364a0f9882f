//! `netmanager why`: what would become of a packet, told by what would decide it, the very programs or the daemon that
//! forwards packets itself, on the live tables, without changing any.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::exit::{Exit, NotFound};
use super::source::{self, Source};
use super::write_json;
use crate::app::Paths;
use crate::cli::Format;
use crate::datapath::{Endpoint, FROM_CONTAINER, Programs};
use crate::hooks;
use crate::names::{self, Names};
use crate::net::Links;
use crate::plane::Seen;
use crate::why::{self, Answer, Mark, Question, Transport, Trial};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Name, NsIP or interface of a container of this node.
    pub from: String,
    /// Name or address, and a port.
    pub to: String,
    pub transport: Transport,
    /// Connections to be begun one after another.
    pub count: u16,
    /// Nothing: the first one that has no flow.
    pub from_port: Option<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    from: String,
    ns_ip: IpAddr,
    interface: u32,
    to_name: String,
    to: SocketAddr,
    transport: Transport,
    /// The kernel's hash of the program that was asked; nothing where the daemon itself was, which forwards the packets.
    program: Option<String>,
    /// Whether the attached programs are those that were asked; nothing if it cannot be told.
    same_build: Option<bool>,
    /// One for each connection.
    answers: Vec<Answer>,
}

const FIRST_PORT: u16 = 40_000;
/// Without one in the question.
const DEFAULT_PORT: u16 = 80;

/// Says with [`Exit::Broken`] that a connection would not come about.
///
/// # Errors
/// When an end is not known, the tables cannot be read, or the kernel does not run the programs.
pub async fn run(paths: &Paths, asked: Asked, format: Format, out: &mut impl Write) -> Result<Exit> {
    let source = Source::find(paths).await?;
    let mut output: Output = source.ask(paths, &source::Question::Why(asked)).await?;
    output.same_build = match &output.program {
        Some(program) => same_build(program, output.interface).await?,
        None => Some(true),
    };
    match format {
        Format::Json => write_json(out, &output)?,
        Format::Table => write(out, &output)?,
    }
    let all_flow = output.answers.iter().all(|answer| answer.flows);
    Ok(if all_flow { Exit::Done } else { Exit::Broken })
}

/// Tries the packets.
///
/// # Errors
/// When an end is not known, the tables cannot be read, or the kernel does not run the programs.
pub(crate) fn answer(seen: &impl Seen, names: &Names, asked: &Asked) -> Result<Output> {
    let mut trial = seen.rehearse().context("load a second copy of the programs")?;
    let from = sender(&trial, names, &asked.from)?;
    let to = destination(&trial, names, &asked.to, asked.transport)?;
    let mut answers = Vec::new();
    let mut port = asked.from_port.unwrap_or(FIRST_PORT);
    for _ in 0..asked.count {
        let mut question = Question { from, from_port: port, to, transport: asked.transport };
        // Somebody's flow would be asked about else.
        while asked.from_port.is_none() && is_taken(&trial, &question)? {
            question.from_port += 1;
        }
        if answers.is_empty()
            && let Some(sent) = why::arrival(&question)
        {
            trial.prepare(from.ifindex, &sent)?;
        }
        answers.push(why::ask(&mut trial, names, &question)?);
        port = question.from_port.wrapping_add(1).max(1);
    }
    Ok(Output {
        from: names.show(from.ns_ip.into()),
        ns_ip: from.ns_ip.into(),
        interface: from.ifindex,
        to_name: names.show(to.ip()),
        to,
        transport: asked.transport,
        program: trial.program()?.map(|tag| format!("{tag:016x}")),
        same_build: None,
        answers,
    })
}

fn is_taken(trial: &impl Trial, question: &Question) -> Result<bool> {
    let Some(sent) = why::arrival(question) else { return Ok(false) };
    Ok(question.from_port < u16::MAX && trial.age(question.from.ifindex, &sent)?.is_some())
}

/// The container that `text` names.
fn sender(trial: &impl Trial, names: &Names, text: &str) -> Result<Endpoint> {
    let address: Option<IpAddr> = text.parse().ok();
    let ifindex = if_nametoindex(text).ok();
    let is_meant = |endpoint: &&Endpoint| {
        let v4 = [Some(endpoint.ns_ip), endpoint.instance_ip].into_iter().flatten().map(IpAddr::V4);
        let v6 = [endpoint.ns_ip6, endpoint.instance_ip6].into_iter().flatten().map(IpAddr::V6);
        let by_address = address.is_some_and(|address| v4.chain(v6).any(|own| own == address));
        let name = names.instance(endpoint.ns_ip.into());
        let by_name = name
            .is_some_and(|name| names::is_instance_meant(name, text) || names::is_meant(&name.service, text));
        by_address || by_name || ifindex == Some(endpoint.ifindex)
    };
    let endpoints = trial.endpoints()?;
    let mut meant: Vec<_> = endpoints.iter().filter(is_meant).collect();
    match (meant.pop(), meant.is_empty()) {
        (Some(endpoint), true) => Ok(*endpoint),
        (Some(last), false) => {
            meant.push(last);
            let several: Vec<_> = meant.iter().map(|endpoint| names.show(endpoint.ns_ip.into())).collect();
            Err(NotFound(format!("'{text}' is several containers of this node: {}", several.join(", ")))
                .into())
        }
        (None, _) => {
            let here = "ask on its own node; `netmanager status` lists the containers here";
            Err(NotFound(format!("no container '{text}' is attached to this node: {here}")).into())
        }
    }
}

/// The address and port that `text` names: `web`, `web:8080`, `10.30.0.4:80`, `[fdff::1]:80`, `10.18.0.2`.
fn destination(trial: &impl Trial, names: &Names, text: &str, transport: Transport) -> Result<SocketAddr> {
    let with_port = |address: IpAddr, port: Option<u16>| {
        let port = if transport == Transport::Icmp { 0 } else { port.unwrap_or(DEFAULT_PORT) };
        SocketAddr::new(address, port)
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(with_port(address.ip(), Some(address.port())));
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(with_port(address, None));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().with_context(|| format!("'{port}' is no port"))?)),
        None => (text, None),
    };
    let mut addresses: Vec<_> = names.addresses_of(name).collect();
    addresses.extend(names.instances_of(name).map(|(address, _)| address));
    // What is known already, then IPv4, says most.
    let is_known = |address: &IpAddr| trial.service(*address).is_ok_and(|service| service.is_some());
    addresses.sort_by_key(|address| (!is_known(address), address.is_ipv6()));
    let address = addresses.first().copied().ok_or_else(|| {
        let known = "give its address, or see `netmanager services`";
        NotFound(format!("no service or instance '{name}' is known on this node: {known}"))
    })?;
    Ok(with_port(address, port))
}

/// Whether the programs attached at an interface are this one; nothing if none is seen there.
async fn same_build(program: &str, ifindex: u32) -> Result<Option<bool>> {
    let Ok(interface) = nix::net::if_::if_indextoname(ifindex) else { return Ok(None) };
    let attached = hooks::at(&interface.to_string_lossy(), ifindex, &Links::open()?, &Programs::read()).await;
    let tags: Vec<_> = attached
        .iter()
        .filter(|attached| attached.name == FROM_CONTAINER)
        .map(|attached| &attached.tag)
        .collect();
    Ok((!tags.is_empty()).then(|| tags.iter().all(|tag| *tag == program)))
}

fn write(out: &mut impl Write, output: &Output) -> std::io::Result<()> {
    let protocol = match output.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp => "echo",
    };
    writeln!(out, "{} {}  ->  {} {}, {protocol}", output.from, output.ns_ip, output.to_name, output.to)?;
    match output.same_build {
        Some(true) => {}
        Some(false) => writeln!(
            out,
            "! The attached programs are of another build than this command: they may decide otherwise."
        )?,
        None => writeln!(
            out,
            "! No program is seen at the container's interface from here: is this the node's network namespace?"
        )?,
    }
    for (number, answer) in output.answers.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        for (step, line) in answer.steps.iter().enumerate() {
            let mark = match line.mark {
                Mark::Ok => "ok",
                Mark::Failed => "FAIL",
                Mark::Unknown => "?",
            };
            writeln!(out, "  {} {:<13} {:<4}  {}", step + 1, line.name, mark, line.detail)?;
        }
        match (&answer.meaning, &answer.remedy) {
            (Some(meaning), Some(remedy)) => writeln!(out, "{meaning}\n{remedy}")?,
            _ if answer.flows => writeln!(out, "Traffic flows, as far as this node can see.")?,
            _ => writeln!(out, "No connection comes about.")?,
        }
    }
    Ok(())
}
