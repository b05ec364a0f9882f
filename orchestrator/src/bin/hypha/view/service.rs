//! Rows of `hypha get services`.

use protocol::service::Service;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::name::Target;
use crate::output::{Column, Field, Row};
use crate::view::instance::node;
use crate::view::megabytes;
use orchestrator::standing::{counts, standing};

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("SERVICE"),
    Column::text("ADDRESS"),
    Column::number("READY"),
    Column::text("STATE"),
    Column::text("IMAGE").wide(),
    Column::text("PORTS").wide(),
    Column::number("CPUS").wide(),
    Column::number("MEMORY").wide(),
    Column::text("NODES").wide(),
    Column::text("DETAIL"),
];

pub(crate) fn row(service: &Service, document: &Value, fleet: &Fleet) -> Row {
    let label = fleet.names().label(Target::Service(service.id));
    let standing = standing(service);
    Row {
        name: format!("service/{label}"),
        fields: vec![
            label.into(),
            service.rr_ip.clone().unwrap_or_default().into(),
            format!("{}/{}", standing.ready, standing.total).into(),
            Field::mood(standing.word, standing.mood),
            service.image.as_str().into(),
            service.sla.port.as_str().into(),
            service.sla.vcpus.to_string().into(),
            megabytes(service.sla.memory).into(),
            nodes(service).into(),
            standing.cause.into(),
        ],
        document: document.clone(),
    }
}

/// Where its instances are, each node once.
pub(crate) fn nodes(service: &Service) -> String {
    let mut nodes: Vec<&str> = Vec::new();
    for instance in service.instance_list.iter().filter(|instance| counts(instance)) {
        let node = node(instance);
        if !node.is_empty() && !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    nodes.join(" ")
}
