//! What start, crash, stop and another version of netmanager do to warm flows between two nodes, and what an unmounted BPF
//! file system does: nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use integration::daemon::Daemon;
use integration::{Netns, eventually};
use netmanager_common::ABI_VERSION;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nameindex;

use crate::bed::{Bed, Container, Places, is_of_a_container, recipe, wait_until_ready};
use crate::neighbour::Neighbour;
use crate::stream::{Bulk, Numbered};

/// In the environment: how many rounds; each takes one node through one event.
const ROUNDS: &str = "HYPHA_ROUNDS";

#[derive(Debug, Clone, Copy)]
enum Event {
    Killed,
    Stopped,
    /// Killed, and the next one finds the data plane of another build: of a newer version, whose rows are as its own.
    Replaced,
    /// The pins are gone with their file system, which is mounted anew; then killed.
    Remounted,
}

const EVENTS: [Event; 4] = [Event::Killed, Event::Stopped, Event::Replaced, Event::Remounted];

/// A node under test.
struct Side<'a> {
    netmanager: &'a mut Daemon,
    node: &'a Arc<Netns>,
    places: &'a Places,
}

impl Side<'_> {
    fn suffer(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Stopped => {
                ensure!(self.netmanager.terminate()?.success(), "no clean end");
            }
            Event::Killed => self.netmanager.kill()?,
            Event::Replaced => self.find_tables_of(ABI_VERSION + 1)?,
            Event::Remounted => {
                self.remount()?;
                self.netmanager.kill()?;
            }
        }
        self.netmanager.start_again()?;
        wait_until_ready(self.netmanager, self.places)?;
        let tables: Vec<_> =
            fs::read_dir(&self.places.pins)?.flatten().map(|entry| entry.file_name()).collect();
        let ours = |name: &std::ffi::OsString| name == "links" || *name == *format!("abi-{ABI_VERSION}");
        ensure!(tables.iter().all(ours), "{tables:?}");
        self.expect_one_program_each()
    }

    fn find_tables_of(&mut self, version: u32) -> Result<()> {
        self.netmanager.kill()?;
        let pins = &self.places.pins;
        let (ours, others) = (pins.join(format!("abi-{ABI_VERSION}")), pins.join(format!("abi-{version}")));
        fs::rename(ours, others).context("give the tables another version")
    }

    fn remount(&self) -> Result<()> {
        let at = self.places.pins.parent().context("pins are in a mount of their own")?;
        umount2(at, MntFlags::empty()).context("unmount the BPF file system")?;
        mount_bpffs(at)?;
        // Any change of a link has netmanager look whether all is well.
        self.node.ip("link add stir0 type bridge")?;
        self.node.ip("link delete stir0")?;
        let pin = self.places.pins.join(format!("abi-{ABI_VERSION}/NODE"));
        eventually(Duration::from_secs(30), "the pins to be made again", || {
            let links = fs::read_dir(self.places.pins.join("links")).map_or(0, Iterator::count);
            // At the uplink, at the container, at the node's own link and at the slow path's device.
            if pin.exists() && links == 4 { Ok(()) } else { Err(anyhow!("{links} links")) }
        })
    }

    /// As the kernel sees it: one at each interface that is ours, none at another's.
    fn expect_one_program_each(&self) -> Result<()> {
        let attached = || -> Result<Vec<(String, usize)>> {
            self.node.run(|| {
                let mut found = Vec::new();
                for interface in &if_nameindex()? {
                    let name = interface.name().to_string_lossy().into_owned();
                    let (_, programs) = SchedClassifier::query_tcx(&name, TcAttachType::Ingress)?;
                    found.push((name, programs.len()));
                }
                Ok(found)
            })?
        };
        let is_ours = |name: &str| ["up0", "tap-hypha", "hynode1"].contains(&name) || is_of_a_container(name);
        // What was detached goes in work of the kernel's own.
        eventually(Duration::from_secs(5), "one program at each interface", || {
            let found = attached()?;
            let right = found.iter().all(|(name, count)| *count == usize::from(is_ours(name)));
            if right { Ok(()) } else { Err(anyhow!("{found:?}")) }
        })
    }
}

fn mount_bpffs(at: &Path) -> Result<()> {
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a BPF file system at {}", at.display()))
}

/// Unmounts at the end of a test, however it ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).ok();
    }
}

#[test]
fn warm_flows_lose_no_packet_whatever_becomes_of_netmanager() -> Result<()> {
    let rounds = std::env::var(ROUNDS).map_or(Ok(10), |text| text.parse()).context(ROUNDS)?;
    let mut bed = Bed::registered()?;
    let mut neighbour = Neighbour::join(&bed)?;
    // Each node with its pins in a file system of its own, which can be unmounted.
    let mounts = [bed.places.folder().join("bpf"), neighbour.places.folder().join("bpf")];
    let _mounted = mounts.each_ref().map(|at| Mounted(at));
    for ((netmanager, node, places), at) in [
        (&mut bed.netmanager, &bed.node, &mut bed.places),
        (&mut neighbour.netmanager, &neighbour.node, &mut neighbour.places),
    ]
    .into_iter()
    .zip(&mounts)
    {
        netmanager.terminate()?;
        fs::remove_dir_all(&places.pins).context("remove the pins")?;
        fs::create_dir(at)?;
        mount_bpffs(at)?;
        places.pins = at.join("hypha");
        *netmanager = recipe(node, places)?.start()?;
        wait_until_ready(netmanager, places)?;
        // Of somebody else, not to be touched.
        node.ip("link add foreign0 type bridge")?;
    }

    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    let datagrams = Numbered::start(&client.netns, &server.netns)?;
    let mut bulk = Bulk::start(&client.netns, &server.netns)?;

    for round in 0..rounds {
        // Both nodes suffer each event in turn.
        let event = EVENTS[round / 2 % EVENTS.len()];
        let mut side = match round % 2 {
            0 => Side { netmanager: &mut bed.netmanager, node: &bed.node, places: &bed.places },
            _ => Side {
                netmanager: &mut neighbour.netmanager,
                node: &neighbour.node,
                places: &neighbour.places,
            },
        };
        side.suffer(event).with_context(|| format!("round {round}, {event:?}"))?;
        bulk.expect_running().with_context(|| format!("round {round}, {event:?}"))?;
        datagrams.expect_none_lost().with_context(|| format!("round {round}, {event:?}"))?;
    }
    let bytes = bulk.finish()?;
    let count = datagrams.finish()?;
    println!("{rounds} rounds: {count} datagrams there and back, {bytes} bytes by one connection");
    for status in [bed.status()?, neighbour.status()?] {
        ensure!(status["drops"] == serde_json::json!([]), "{}", status["drops"]);
    }
    Ok(())
}
