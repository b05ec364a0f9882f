//! Which BPF programs hang at an interface by other ways than tcx, which aya is asked for.

use futures::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkXdp};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcOption};

use super::{Links, NetError, Reason};

/// The kernel's numbers of programs at one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// Filters at the ingress, by the clsact or ingress qdisc.
    pub clsact: Vec<u32>,
    pub xdp: Option<u32>,
}

impl Links {
    /// The programs at the ingress of an interface; of one that is gone, none.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn filters(&self, ifindex: u32) -> Result<Filters, NetError> {
        let doing = || format!("list the BPF programs of interface {ifindex}");
        let mut filters = Filters::default();
        let mut messages = self.handle.traffic_filter(ifindex.cast_signed()).get().ingress().execute();
        loop {
            match messages.try_next().await.map_err(Reason::from) {
                Ok(Some(message)) => filters.clsact.extend(program(&message.attributes)),
                Ok(None) => break,
                // No qdisc, no filters.
                Err(reason) if reason.is_gone() || reason.is_invalid() => break,
                Err(reason) => return Err(NetError::new(doing(), reason)),
            }
        }
        filters.clsact.sort_unstable();
        filters.clsact.dedup();
        let mut links = self.handle.link().get().match_index(ifindex).execute();
        match links.try_next().await.map_err(Reason::from) {
            Ok(Some(link)) => filters.xdp = link.attributes.iter().find_map(xdp),
            Ok(None) => {}
            Err(reason) if reason.is_gone() => {}
            Err(reason) => return Err(NetError::new(doing(), reason)),
        }
        Ok(filters)
    }
}

fn program(attributes: &[TcAttribute]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    })
}

fn xdp(attribute: &LinkAttribute) -> Option<u32> {
    let LinkAttribute::Xdp(parts) = attribute else { return None };
    parts.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        _ => None,
    })
}
