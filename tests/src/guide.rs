//! How a person looks around in a lab that is held open.
#![expect(clippy::print_stdout, reason = "it is text for a person")]

use anyhow::Result;

use crate::daemon::binary;
use crate::lab::Lab;

/// Prints the lines to paste into another shell.
pub fn print_guide(lab: &Lab) -> Result<()> {
    let hypha = binary("hypha")?;
    let netmanager = binary("netmanager")?;
    let control = lab.control.netns.path().display();
    println!("\nTo use it from another shell (as root):");
    for (name, value) in lab.control.hypha_environment() {
        println!("  export {name}={value}");
    }
    println!("  alias hypha='nsenter --net={control} {}'", hypha.display());
    println!("  hypha status");
    println!("To enter a node's network:");
    for worker in &lab.workers {
        println!(
            "  nsenter --net={}    # {}, {}",
            worker.netns.path().display(),
            worker.name,
            worker.address
        );
    }
    if let Some(worker) = lab.workers.first() {
        println!("The data plane and the containers of {}:", worker.name);
        println!("  {} status {}", netmanager.display(), worker.netmanager_flags());
        println!("  ctr -a {} -n oakestra task ls", worker.containerd.socket().display());
        println!("Packets on the underlay:");
        println!("  ip netns exec {} tcpdump -ni {} udp port 50103", lab.underlay.netns.name(), worker.name);
    }
    println!("Logs and state: {}", lab.folder().display());
    Ok(())
}
