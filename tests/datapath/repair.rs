//! What was taken away from the data plane is put back.

use netmanager::datapath::{Hook, Repair, Tables};

use crate::nodes::{Underlay, has_tcx, hook};

#[test]
fn pins_that_are_lost_are_made_again() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    let container = node.container(2);
    std::fs::remove_dir_all(node.pins.path()).unwrap();
    let repairs = node.within(|datapath| datapath.repair()).unwrap();
    // Filters of clsact need no pins, so they were never gone.
    let expected = if hook() == Hook::Tcx { 3 } else { 1 };
    assert_eq!(repairs.len(), expected, "{repairs:?}");
    assert!(repairs.contains(&Repair::Pins));
    node.assert_attached(2);
    let tables = Tables::open(node.pins.path()).unwrap();
    assert_eq!(tables.endpoints().unwrap(), [container.endpoint], "the same tables, not new ones");
    assert_eq!(node.within(|datapath| datapath.repair()).unwrap(), [], "twice is once");
    node.assert_attached(2);
}

#[test]
fn a_program_that_was_detached_is_attached_again() {
    if !has_tcx() {
        return;
    }
    let mut underlay = Underlay::with_hook(1, Hook::Tcx);
    let node = &mut underlay.nodes[0];
    let _container = node.container(2);
    let link = node.pins.path().join(format!("links/ingress-{}", node.ifindex("veth2")));
    std::fs::remove_file(link).unwrap();
    let repairs = node.within(|datapath| datapath.repair()).unwrap();
    let attachment = Repair::Attachment { program: "from_container", interface: "veth2".to_owned() };
    assert_eq!(repairs, [attachment]);
    node.assert_attached(2);
}

#[test]
fn interfaces_that_have_gone_do_not_hinder_the_repair_of_others() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    let (_gone, _stays) = (node.container(2), node.container(3));
    node.netns.ip("link delete veth2").unwrap();
    assert_eq!(node.within(|datapath| datapath.repair()).unwrap(), []);
    node.assert_attached(2);
}
