//! The ServiceIPs that the author of a service may choose.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocol::address::{CLOSEST6_FIRST, ROUND_ROBIN6_FIRST};
use protocol::sla::InstanceAddresses;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::service::{ELEMENTS_MAX, WORD_MAX};
use super::{Check, join, present};
use crate::root::pool::{self, Given};

/// Numbers of instances count up for as long as a service lives.
const NUMBER_MAX: u32 = 1 << 20;

/// Instances whose addresses may be chosen, in all: they go with their service in one transaction, and beside what is told to
/// clusters then, etcd takes no more (`root::creation`).
const CHOSEN_MAX: u64 = 500;

/// The IPv6 addresses of one kind: those from `first` on whose second group is not past `last_group`. The first /112 is
/// left to the root, which gives each IPv4 address one of it.
struct Range {
    first: Ipv6Addr,
    last_group: u16,
}

const ROUND_ROBIN: Range = Range { first: ROUND_ROBIN6_FIRST, last_group: 0x20ff };
const CLOSEST: Range = Range { first: CLOSEST6_FIRST, last_group: 0x17ff };

impl Range {
    fn contains(&self, address: Ipv6Addr) -> bool {
        let [first, second, rest @ ..] = address.segments();
        let [range, first_group, ..] = self.first.segments();
        let is_roots = second == first_group && rest[..5].iter().all(|segment| *segment == 0);
        first == range && (first_group..=self.last_group).contains(&second) && !is_roots
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [group, ..] = self.first.segments();
        write!(
            f,
            "{first} to {group:x}:{last:x}:…, but for {first}/112 which the root gives out",
            first = self.first,
            last = self.last_group
        )
    }
}

impl Check<'_> {
    pub(super) fn addresses(&mut self, service: &Map<String, Value>, path: &str) {
        let Some(addresses) = present(service, "addresses") else { return };
        let path = join(path, "addresses");
        let Some(addresses) = self.object(addresses, &path) else { return };
        for key in ["rr_ip", "closest_ip"] {
            self.chosen_v4(addresses, &path, key);
        }
        self.chosen_v6(addresses, &path, "rr_ip_v6", &ROUND_ROBIN);
        self.chosen_v6(addresses, &path, "closest_ip_v6", &CLOSEST);
        self.of_instances(addresses, &path);
    }

    fn chosen_v4(&mut self, addresses: &Map<String, Value>, path: &str, key: &str) {
        let text = self.text(addresses, path, key, WORD_MAX).filter(|text| !text.is_empty());
        let Some(text) = text else { return };
        let path = join(path, key);
        match text.parse::<Ipv4Addr>() {
            Err(_invalid) => self.wrong(&path, format!("{text:?} is no IPv4 address")),
            Ok(address) => match self.services.filter(|given| !given.contains(address)) {
                Some(given) => self.wrong(&path, format!("expected {given}, got {text}")),
                None => {
                    self.choose(&path, address.into());
                }
            },
        }
    }

    fn chosen_v6(&mut self, addresses: &Map<String, Value>, path: &str, key: &str, range: &Range) {
        let text = self.text(addresses, path, key, WORD_MAX).filter(|text| !text.is_empty());
        let Some(text) = text else { return };
        let path = join(path, key);
        match text.parse::<Ipv6Addr>() {
            Err(_invalid) => self.wrong(&path, format!("{text:?} is no IPv6 address")),
            Ok(address) if !range.contains(address) => {
                self.wrong(&path, format!("expected {range}; got {text}"));
            }
            Ok(address) => {
                self.choose(&path, address.into());
            }
        }
    }

    fn of_instances(&mut self, addresses: &Map<String, Value>, path: &str) {
        let mut numbered: Vec<InstanceAddresses> = Vec::new();
        let list = self.list(addresses, path, "instances", ELEMENTS_MAX);
        for (index, value) in list.into_iter().flatten().enumerate() {
            let path = format!("{path}.instances[{index}]");
            let Ok(range) = InstanceAddresses::deserialize(value) else {
                let expected = "expected {\"from\": number, \"to\": number, \"start\": \"a ServiceIP\"}";
                self.wrong(&path, expected);
                continue;
            };
            let InstanceAddresses { from, to, start } = range;
            let steps = to.checked_sub(from).filter(|steps| u64::from(*steps) < CHOSEN_MAX);
            let Some(steps) = steps.filter(|_| to <= NUMBER_MAX) else {
                let bounds = format!("at most {CHOSEN_MAX} instances, numbers up to {NUMBER_MAX}");
                self.wrong(&join(&path, "to"), format!("expected {from} or more, {bounds}, got {to}"));
                continue;
            };
            let last = pool::after(start, steps);
            let is_given =
                |given: Given| given.contains(start) && last.is_some_and(|last| given.contains(last));
            if last.is_none() || self.services.is_some_and(|given| !is_given(given)) {
                let within =
                    self.services.map_or_else(|| "those of services".to_owned(), |given| given.to_string());
                self.wrong(
                    &join(&path, "start"),
                    format!(
                        "expected all addresses from it on within {within}, got {start} for {} of them",
                        steps + 1
                    ),
                );
                continue;
            }
            if numbered.iter().any(|other| from <= other.to && other.from <= to) {
                self.wrong(&join(&path, "from"), "some of these instances have an address already");
                continue;
            }
            let count = numbered.iter().map(|other| u64::from(other.to - other.from) + 1).sum::<u64>();
            if count + u64::from(steps) >= CHOSEN_MAX {
                let expected = format!("expected addresses for at most {CHOSEN_MAX} instances in all");
                self.wrong(&join(&path, "to"), expected);
                continue;
            }
            numbered.push(range);
            let mut wanted = (0..=steps).filter_map(|step| pool::after(start, step));
            let start_path = join(&path, "start");
            // The first that cannot be had says enough.
            let _all = wanted.all(|address| self.choose(&start_path, address.into()));
        }
    }

    /// Notes that the document asks for this address. Says whether it can be had.
    fn choose(&mut self, path: &str, address: IpAddr) -> bool {
        if (self.is_taken)(address) {
            self.wrong(path, format!("{address} is taken by another service"));
            return false;
        }
        let is_new = self.chosen.insert(address);
        if !is_new {
            self.wrong(path, format!("{address} is asked for twice in this document"));
        }
        is_new
    }
}
