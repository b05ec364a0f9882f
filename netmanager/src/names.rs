//! Whose an address is: from what the cluster answered last and what is attached here, both read from the state
//! directory. Names make the kernel's tables readable; nothing depends on them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocol::name::{InstanceName, ServiceName};
use protocol::net::TableResult;

use crate::state::{Attachment, StateError, Store};

/// The names of addresses, and addresses by name.
#[derive(Debug, Default)]
pub struct Names {
    /// ServiceIPs that stand for a whole service.
    services: BTreeMap<IpAddr, ServiceName>,
    /// Instance addresses and NsIPs.
    instances: BTreeMap<IpAddr, InstanceName>,
    /// The containers of this node.
    pub attached: Vec<Attachment>,
}

impl Names {
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn read(store: &Store) -> Result<Self, StateError> {
        let attached = store.node()?.endpoints;
        Ok(Self::new(&store.tables()?, attached))
    }

    fn new(tables: &[TableResult], attached: Vec<Attachment>) -> Self {
        let mut names = Self::default();
        for table in tables {
            let Ok(service) = table.app_name.parse::<ServiceName>() else { continue };
            for entry in &table.instance_list {
                let name = InstanceName { service: service.clone(), number: entry.instance_number };
                let own = entry.instance_ip.map(IpAddr::V4);
                let texts = [&entry.instance_ip_v6, &entry.namespace_ip, &entry.namespace_ip_v6];
                let texts = texts.into_iter().flatten().filter_map(|text| address(text));
                names.instances.extend(own.into_iter().chain(texts).map(|address| (address, name.clone())));
                let shared = entry.service_ip.iter().flat_map(|ip| [&ip.address, &ip.address_v6]);
                names.services.extend(shared.filter_map(|text| Some((address(text)?, service.clone()))));
            }
        }
        // An instance's own address is among the ServiceIPs of its entry, too.
        let Self { services, instances, .. } = &mut names;
        services.retain(|address, _| !instances.contains_key(address));
        for container in &attached {
            let v4 = [container.instance_ip, Some(container.ns_ip)].into_iter().flatten().map(IpAddr::V4);
            let v6 = [container.instance_ip6, container.ns_ip6].into_iter().flatten().map(IpAddr::V6);
            let addresses = v4.chain(v6);
            names.instances.extend(addresses.map(|address| (address, container.instance.clone())));
        }
        names.attached = attached;
        names
    }

    /// The service that an address belongs to, its own or an instance's.
    #[must_use]
    pub fn service(&self, address: IpAddr) -> Option<&ServiceName> {
        self.services.get(&address).or_else(|| self.instances.get(&address).map(|name| &name.service))
    }

    /// The instance that has this NsIP or instance address.
    #[must_use]
    pub fn instance(&self, address: IpAddr) -> Option<&InstanceName> {
        self.instances.get(&address)
    }

    /// How an address is shown to people: its short name, if it has one.
    #[must_use]
    pub fn show(&self, address: IpAddr) -> String {
        match (self.instances.get(&address), self.services.get(&address)) {
            (Some(name), _) => short_instance(name),
            (None, Some(name)) => short(name),
            (None, None) => address.to_string(),
        }
    }

    /// The ServiceIPs of the services that `text` names.
    pub fn addresses_of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        self.services.iter().filter(|(_, name)| is_meant(name, text)).map(|(address, _)| *address)
    }

    /// The instances that `text` names, each with its addresses.
    pub fn instances_of<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (IpAddr, &'a InstanceName)> + 'a {
        let meant = self.instances.iter().filter(move |(_, name)| is_instance_meant(name, text));
        meant.map(|(address, name)| (*address, name))
    }
}

/// Networks from before IPv6 say "" or an address of no meaning where there is none.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let is_none =
        address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || address == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (!is_none).then_some(address)
}

/// `app/service`.
#[must_use]
pub fn short(name: &ServiceName) -> String {
    let mut parts = name.parts();
    let (app, service) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    format!("{app}/{service}")
}

/// `app/service/3`.
#[must_use]
pub fn short_instance(name: &InstanceName) -> String {
    format!("{}/{}", short(&name.service), name.number)
}

/// Whether a person means this service: by its whole name, as `app/service`, or by the service alone.
#[must_use]
pub fn is_meant(name: &ServiceName, text: &str) -> bool {
    name.as_str() == text || short(name) == text || name.parts().nth(2) == Some(text)
}

/// Whether a person means this instance: by its whole name, as `app/service/3`, or as `service/3`.
#[must_use]
pub fn is_instance_meant(name: &InstanceName, text: &str) -> bool {
    let by_number = text.rsplit_once('/').is_some_and(|(service, number)| {
        number.parse() == Ok(name.number) && is_meant(&name.service, service)
    });
    by_number || name.to_string() == text
}

#[cfg(test)]
mod tests {
    use protocol::name::InstanceName;
    use serde_json::json;

    use super::{Names, is_instance_meant, is_meant};

    fn names() -> Names {
        let table = json!({ "app_name": "shop.prod.web.prod", "query_key": "", "instance_list": [{
            "instance_number": 2, "instance_ip": "10.30.0.9", "instance_ip_v6": "", "namespace_ip": "10.18.0.66",
            "namespace_ip_v6": "::", "host_ip": "192.0.2.2", "host_port": 50103,
            "service_ip": [
                { "IpType": "RR", "Address": "10.30.30.30", "Address_v6": "fdff:1000::1e" },
                { "IpType": "instance_ip", "Address": "10.30.0.9", "Address_v6": "" }
            ] }] });
        Names::new(&[serde_json::from_value(table).unwrap()], Vec::new())
    }

    #[test]
    fn an_address_is_shown_by_what_it_stands_for() {
        let names = names();
        let shown = |text: &str| names.show(text.parse().unwrap());
        assert_eq!(shown("10.30.30.30"), "shop/web");
        assert_eq!(shown("fdff:1000::1e"), "shop/web");
        assert_eq!(shown("10.30.0.9"), "shop/web/2");
        assert_eq!(shown("10.18.0.66"), "shop/web/2");
        assert_eq!(shown("10.18.0.67"), "10.18.0.67");
        assert_eq!(shown("::"), "::", "no address is nobody's");
    }

    #[test]
    fn a_service_is_found_by_its_whole_and_its_short_names() {
        let names = names();
        for text in ["web", "shop/web", "shop.prod.web.prod"] {
            assert_eq!(names.addresses_of(text).count(), 2, "{text}");
        }
        for text in ["shop", "prod", "we", ""] {
            assert_eq!(names.addresses_of(text).count(), 0, "{text}");
        }
    }

    #[test]
    fn an_instance_is_found_by_its_number() {
        let name: InstanceName = "shop.prod.web.prod.instance.2".parse().unwrap();
        for text in ["web/2", "shop/web/2", "shop.prod.web.prod.instance.2", "shop.prod.web.prod/2"] {
            assert!(is_instance_meant(&name, text), "{text}");
        }
        for text in ["web", "web/3", "shop/2", "2", "/2"] {
            assert!(!is_instance_meant(&name, text), "{text}");
        }
        assert!(is_meant(&name.service, "web"));
    }
}
