//! What becomes of a packet, step by step: what would decide it is asked by a [`Trial`], and what it did is told in
//! words. Nothing is guessed that a program can say; what only another node knows is said to be unknown.

mod packet;
mod trial;
mod way_back;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use self::packet::{Ends, Part, Seen};
pub(crate) use self::trial::Trial;
use crate::datapath::{Arrival, Backend, DatapathError, Endpoint, Outcome, Policy, Verdict, gateway_of};
use crate::names::Names;
use crate::remedy;
use crate::report::policy;

/// Of the made packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A SYN.
    Tcp,
    Udp,
    /// An echo request.
    Icmp,
}

/// The packet that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The container that would send it.
    pub from: Endpoint,
    pub from_port: u16,
    /// Without a port (0) if it is an echo.
    pub to: SocketAddr,
    pub transport: Transport,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    Ok,
    Failed,
    /// Only another node, or the time, can tell.
    Unknown,
}

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: Cow<'static, str>,
    pub detail: String,
    pub mark: Mark,
}

/// Where the packet ends, as far as this node can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// In a container of this node.
    Delivered,
    /// In the tunnel.
    Sent,
    /// At the host, which answers or routes it.
    Host,
    /// At netmanager, which holds it for an answer of the cluster, or answers it.
    Netmanager,
    Dropped,
}

/// The whole story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub steps: Vec<Step>,
    pub end: End,
    /// The instance that was chosen.
    pub instance: Option<Chosen>,
    /// Why it goes no further.
    pub reason: Option<Cow<'static, str>>,
    pub meaning: Option<Cow<'static, str>>,
    pub remedy: Option<Cow<'static, str>>,
    /// Whether a connection would come about, as far as this node can see.
    pub flows: bool,
}

/// An instance, in the family of the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    pub name: Option<String>,
    pub ns_ip: IpAddr,
    pub instance_ip: IpAddr,
    /// Where its node listens.
    pub node: SocketAddr,
    pub here: bool,
}

/// Runs the programs on the packet, and on the answer to it.
///
/// # Errors
/// When the tables cannot be read or the kernel does not run the programs.
pub(crate) fn ask(
    trial: &mut impl Trial,
    names: &Names,
    question: &Question,
) -> Result<Answer, DatapathError> {
    let Some(source) = source_like(&question.from, question.to.ip()) else {
        return Ok(without_family(question));
    };
    let ends = Ends { source: SocketAddr::new(source, question.from_port), destination: question.to };
    let Some(ip) = packet::ip(&ends, question.transport, Part::First) else {
        return Ok(without_family(question));
    };
    let frame = packet::frame(question.from.gateway_mac, question.from.mac, &ip);
    let outcome = trial.sends(question.from.ifindex, &frame)?;
    Story { names, question, ends, steps: Vec::new() }.tell(trial, &outcome)
}

/// How the programs would see the packet, for [`Trial::prepare`].
#[must_use]
pub fn arrival(question: &Question) -> Option<Arrival> {
    let source = source_like(&question.from, question.to.ip())?;
    let protocol = match (question.transport, question.to.is_ipv6()) {
        (Transport::Tcp, _) => 6,
        (Transport::Udp, _) => 17,
        (Transport::Icmp, false) => 1,
        (Transport::Icmp, true) => 58,
    };
    Some(Arrival {
        source,
        destination: question.to.ip(),
        source_port: question.from_port,
        destination_port: question.to.port(),
        protocol,
    })
}

fn source_like(from: &Endpoint, to: IpAddr) -> Option<IpAddr> {
    match to {
        IpAddr::V4(_) => Some(from.ns_ip.into()),
        IpAddr::V6(_) => from.ns_ip6.map(IpAddr::V6),
    }
}

fn without_family(question: &Question) -> Answer {
    let detail =
        format!("{} has no IPv6 address, so it cannot send to {}", question.from.ns_ip, question.to.ip());
    Answer {
        steps: vec![Step { name: "sender".into(), detail, mark: Mark::Failed }],
        end: End::Dropped,
        instance: None,
        reason: None,
        meaning: None,
        remedy: None,
        flows: false,
    }
}

struct Story<'a> {
    names: &'a Names,
    question: &'a Question,
    ends: Ends,
    steps: Vec<Step>,
}

impl Story<'_> {
    fn step(&mut self, name: &'static str, mark: Mark, detail: String) {
        self.steps.push(Step { name: name.into(), detail, mark });
    }

    fn tell(mut self, trial: &mut impl Trial, outcome: &Outcome) -> Result<Answer, DatapathError> {
        let Ends { source, destination } = self.ends;
        let reason = outcome.dropped.or(outcome.given);
        let lies = reason == Some(crate::datapath::DropReason::SpoofedSource);
        let sender = match self.names.instance(source.ip()) {
            Some(name) => format!("{} is {}'s address", source.ip(), crate::names::short_instance(name)),
            None => format!("{} is a container of this node, which has no name here", source.ip()),
        };
        self.step("sender", if lies { Mark::Failed } else { Mark::Ok }, sender);
        let service = trial.service(destination.ip())?;
        if let Some(service) = &service {
            let count = service.backends.len();
            let mark = if count == 0 { Mark::Failed } else { Mark::Ok };
            let chooses = policy(service.policy);
            self.step(
                "service",
                mark,
                format!("{} has {count} instances here, chooses {chooses}", self.show(destination.ip())),
            );
        } else if trial.ranges()?.is_service(destination.ip()) {
            self.step(
                "service",
                Mark::Failed,
                format!("{} is not in the table of this node", destination.ip()),
            );
        }
        if let Some(sent) = arrival(self.question)
            && let Some(age) = trial.age(self.question.from.ifindex, &sent)?
        {
            let state = if age.has_backend { "keeps its instance" } else { "has lost its instance" };
            let detail = format!(
                "there is one from port {}, idle for {} s; it {state}",
                source.port(),
                age.idle.as_secs()
            );
            self.step("flow", Mark::Ok, detail);
        }
        if !outcome.misses.is_empty() {
            self.step("miss", Mark::Unknown, "netmanager is told, and asks the cluster".to_owned());
        }
        match outcome.verdict {
            Verdict::Dropped => Ok(self.ends_by(End::Dropped, outcome)),
            Verdict::Redirected if outcome.given.is_some() => Ok(self.ends_by(End::Netmanager, outcome)),
            Verdict::Redirected => {
                self.goes_on(trial, outcome, service.map(|service| (service.policy, service.backends.len())))
            }
            Verdict::ToHost | Verdict::Other(_) => {
                let gateway = gateway_of(source.ip()) == destination.ip();
                let detail = if gateway {
                    "the host answers it: it is the gateway"
                } else {
                    "the host routes and masquerades it, if its firewall lets it pass"
                };
                self.step("host", Mark::Unknown, detail.to_owned());
                Ok(self.answer(End::Host, None, outcome, true))
            }
        }
    }

    fn ends_by(mut self, end: End, outcome: &Outcome) -> Answer {
        let (name, reason) = match end {
            End::Netmanager => ("to netmanager", outcome.given),
            _ => ("drop", outcome.dropped),
        };
        let why = reason.map_or("without a reason", |reason| reason.name());
        let detail = match end {
            End::Netmanager => format!(
                "{why}: it waits there for an answer of the cluster, or its sender is told by ICMP or a reset"
            ),
            _ => why.to_owned(),
        };
        self.step(name, Mark::Failed, detail);
        self.answer(end, None, outcome, false)
    }

    /// The packet leaves for a container or a node.
    fn goes_on(
        mut self,
        trial: &mut impl Trial,
        outcome: &Outcome,
        service: Option<(Policy, usize)>,
    ) -> Result<Answer, DatapathError> {
        let node = trial.node()?;
        let peers = trial.peers()?;
        let seen = packet::read(&outcome.frame, |to| peers.contains(&to));
        let inner = match &seen {
            Seen::Delivered { ends, .. } => *ends,
            Seen::Tunnelled { inner, .. } => *inner,
            Seen::Unreadable => {
                self.step(
                    "frame",
                    Mark::Unknown,
                    "it leaves in a form that this command cannot read".to_owned(),
                );
                return Ok(self.answer(End::Sent, None, outcome, false));
            }
        };
        let chosen = self.chosen(trial, inner.destination.ip())?;
        if let (Some((how, count)), Some(chosen)) = (service, &chosen) {
            let by = match how {
                Policy::RoundRobin if count > 1 => "whose turn it is",
                Policy::LeastConnections if count > 1 => "with the fewest connections from here",
                Policy::RoundRobin | Policy::LeastConnections => "the only one",
                _ => policy(how),
            };
            let place = if chosen.here { "this node".to_owned() } else { chosen.node.to_string() };
            let name = chosen.name.clone().unwrap_or_else(|| chosen.instance_ip.to_string());
            self.step("choice", Mark::Ok, format!("{name} at {} on {place}, {by}", chosen.ns_ip));
        }
        if inner != self.ends {
            let Ends { source, destination } = self.ends;
            let detail = format!("{source} > {destination} becomes {} > {}", inner.source, inner.destination);
            self.step("translation", Mark::Ok, detail);
        }
        let end = match &seen {
            Seen::Tunnelled { outer, length, .. } => {
                let mtu = node.map_or(0, |node| node.inner_mtu);
                let detail =
                    format!("{} > {}, {length} bytes, up to {mtu} inside", outer.source, outer.destination);
                self.step("tunnel", Mark::Ok, detail);
                let detail = format!(
                    "{} takes it if its table has {} at {}, and has {}; only that node can tell",
                    outer.destination.ip(),
                    inner.source.ip(),
                    outer.source.ip(),
                    inner.destination.ip()
                );
                self.step("arrival", Mark::Unknown, detail);
                End::Sent
            }
            _ => {
                self.step(
                    "delivery",
                    Mark::Ok,
                    format!("into {} on this node", self.show(inner.destination.ip())),
                );
                End::Delivered
            }
        };
        let back = way_back::ask(trial, self.question, self.ends, inner, chosen.as_ref(), &seen)?;
        let returns = back.mark != Mark::Failed;
        self.steps.push(back);
        Ok(self.answer(end, chosen, outcome, returns))
    }

    /// Who has this NsIP.
    fn chosen(&self, trial: &impl Trial, ns_ip: IpAddr) -> Result<Option<Chosen>, DatapathError> {
        let name = self.names.instance(ns_ip).map(crate::names::short_instance);
        if let Some(own) = trial.instance_ip(ns_ip)? {
            let Some(node) = trial.node()? else { return Ok(None) };
            let address = node.addresses.v4.map(IpAddr::V4).or(node.addresses.v6.map(IpAddr::V6));
            return Ok(address.map(|address| Chosen {
                name,
                ns_ip,
                instance_ip: own.unwrap_or(ns_ip),
                node: SocketAddr::new(address, node.tunnel_port),
                here: true,
            }));
        }
        let host: Option<Backend> = trial.host_of(ns_ip)?;
        Ok(host.map(|host| Chosen {
            name,
            ns_ip,
            instance_ip: match ns_ip {
                IpAddr::V4(_) => host.instance_ip.into(),
                IpAddr::V6(_) => host.instance_ip6.map_or(ns_ip, IpAddr::V6),
            },
            node: host.node,
            here: false,
        }))
    }

    /// With its address, if it has a name.
    fn show(&self, address: IpAddr) -> String {
        match self.names.show(address) {
            name if name == address.to_string() => name,
            name => format!("{name} {address}"),
        }
    }

    fn answer(self, end: End, instance: Option<Chosen>, outcome: &Outcome, flows: bool) -> Answer {
        let reason = outcome.dropped.or(outcome.given);
        Answer {
            steps: self.steps,
            end,
            instance,
            reason: reason.map(|reason| reason.name().into()),
            meaning: reason.map(|reason| reason.meaning().into()),
            remedy: reason.map(|reason| remedy::of(reason).into()),
            flows,
        }
    }
}
