//! A download runs while the netmanager that its packets' tables belong to is killed and started again.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::download::Download;
use integration::{Lab, System, eventually, image};

use crate::deploy::{CLIENT, WEB};
use crate::tour::Tour;

/// How long the node is without its netmanager.
const AWAY: Duration = Duration::from_secs(2);

pub(crate) fn survive_a_kill(lab: &mut Lab, tour: &mut Tour) -> Result<()> {
    tour.step("Kill and restart the client's netmanager while a download runs through it")?;
    let system = System::find(lab, WEB, CLIENT)?;
    let url = format!("http://{}{}", system.service_ip, image::STREAM_PATH);
    let download = Download::start(&system.client.container, &url)?;
    let worker = &mut lab.workers[system.client.worker];
    let grown = |download: &Download, from: usize| {
        eventually(Duration::from_secs(5), &format!("more than {from} bytes"), || {
            let bytes = download.bytes();
            if bytes > from { Ok(bytes) } else { Err(bytes) }
        })
    };
    let before = grown(&download, 0)?;
    tour.say(format!("{before:8} bytes of {url}"));

    let pid = worker.netmanager.pid();
    worker.netmanager.kill()?;
    tour.say(format!("{:8} bytes   $ kill -9 {pid}    (netmanager of {})", download.bytes(), worker.name));
    let at_kill = download.bytes();
    thread::sleep(AWAY);
    let meanwhile = download.bytes();
    tour.say(format!("{meanwhile:8} bytes   without it for {} s, the packets go on", AWAY.as_secs()));
    ensure!(meanwhile > at_kill, "nothing came without netmanager");

    worker.netmanager.start_again()?;
    worker.wait_for_netmanager()?;
    let after = grown(&download, download.bytes())?;
    tour.say(format!("{after:8} bytes   netmanager is back as {}", worker.netmanager.pid()));

    let content = download.finish()?;
    let sum = image::sha256(&content);
    ensure!(sum == image::sha256(&image::stream()), "{} bytes came, and not the right ones", content.len());
    tour.say(format!(
        "{:8} bytes   complete over one connection, SHA-256 {}… is right",
        content.len(),
        &sum[..16]
    ));
    Ok(())
}
