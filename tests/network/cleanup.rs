//! `netmanager cleanup` leaves nothing, whatever went before.

use anyhow::Result;
use integration::process;
use serde_json::Value;

use crate::bed::{Bed, Container, ip_json};

fn nothing_is_left(bed: &Bed) -> Result<()> {
    assert_eq!(bed.links()?, Vec::<String>::new());
    let routes = ip_json(&bed.node, &["-4", "route"])?;
    let is_ours =
        |route: &Value| ["10.18", "10.30"].iter().any(|range| route["dst"].to_string().contains(range));
    assert!(!routes.iter().any(is_ours), "{routes:?}");
    let links = ip_json(&bed.node, &["link"])?;
    assert!(links.iter().all(|link| !link["ifname"].to_string().contains("hynode")), "{links:?}");
    assert_eq!(bed.node.output("nft", &["list", "tables"])?, "");
    assert!(!bed.places.pins.exists(), "{} is there", bed.places.pins.display());
    assert!(!bed.places.state().exists(), "{} is there", bed.places.state().display());
    assert!(!bed.places.socket().exists());
    Ok(())
}

#[test]
fn cleanup_after_a_crash_leaves_nothing_and_says_what_it_removed() -> Result<()> {
    let mut bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    let (status, said) = bed.attach(&container, 0, "8080:80")?;
    assert_eq!(status, 200, "{said}");
    bed.netmanager.kill()?;
    let said = process::output(&mut bed.command("cleanup")?)?;
    for what in
        ["smp.bed.srv.bed.instance.0", "hynode0", "nftables", "node.json", "data plane", "netmanager.sock"]
    {
        assert!(said.contains(what), "{what} is not in: {said}");
    }
    nothing_is_left(&bed)?;
    let said = process::output(&mut bed.command("cleanup")?)?;
    assert!(said.contains("nothing to remove"), "{said}");

    // Afterwards the node is as new.
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    assert_eq!(bed.register("6b033dc62c1f07cbdcd88449")?.0, 200);
    bed.attached(&container, 0)?;
    Ok(())
}

#[test]
fn cleanup_refuses_while_the_daemon_runs() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let output = process::finish(&mut bed.command("cleanup")?, "")?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&bed.netmanager.pid().to_string()), "{said}");
    container.netns.output("ping", &["-c", "1", "-W", "2", "192.0.2.20"])?;
    Ok(())
}

#[test]
fn cleanup_clears_a_state_that_cannot_be_read() -> Result<()> {
    let mut bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    bed.netmanager.terminate()?;
    std::fs::write(bed.places.state().join("node.json"), "{")?;
    process::output(&mut bed.command("cleanup")?)?;
    nothing_is_left(&bed)
}
