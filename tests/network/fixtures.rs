//! The tools of these tests themselves: do they make and remove what they say?

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use integration::footprint::Footprint;
use integration::netns::{Netns, connect, remove_stale, require_root};
use integration::{image, process};

#[test]
fn namespaces_are_apart_until_they_are_connected_and_gone_when_dropped() {
    require_root().unwrap();
    let (left, right) = (Netns::new("left").unwrap(), Netns::new("right").unwrap());
    assert_ne!(left.inode().unwrap(), right.inode().unwrap());
    connect((&left, "up0"), (&right, "up1")).unwrap();
    left.ip("addr add 192.0.2.1/24 dev up0").unwrap();
    right.ip("addr add 192.0.2.2/24 dev up1").unwrap();
    left.output("ping", &["-c", "1", "-W", "2", "192.0.2.2"]).unwrap();

    let listener = right.run(|| TcpListener::bind("192.0.2.2:80")).unwrap().unwrap();
    left.run(|| TcpStream::connect("192.0.2.2:80")).unwrap().unwrap();
    listener.accept().expect("a socket made inside is used from outside");

    let path = left.path().to_owned();
    drop(left);
    assert!(!path.exists(), "{} is still there", path.display());
}

#[test]
fn the_leftovers_of_a_killed_run_are_removed() {
    require_root().unwrap();
    let netns = Netns::new("stale").unwrap();
    // No process has so large a number, so a namespace of that name belongs to nobody alive.
    let stale = netns.path().with_file_name("hypha-4194304-0-stale");
    fs::File::create(&stale).unwrap();
    process::output(Command::new("mount").arg("--bind").args([netns.path(), &stale])).unwrap();
    let mut left_behind = netns.command("sleep").unwrap().arg("600").spawn().unwrap();
    assert_eq!(remove_stale().unwrap(), ["hypha-4194304-0-stale"]);
    assert!(!left_behind.wait().unwrap().success(), "its process was killed");
    assert!(!stale.exists(), "{} is still there", stale.display());
}

#[test]
fn a_footprint_shows_what_was_made_in_between() {
    require_root().unwrap();
    let before = Footprint::take().unwrap();
    let netns = Netns::new("seen").unwrap();
    let mut sleeper = netns.command("sleep").unwrap().arg("60").spawn().unwrap();
    let now = Footprint::take().unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let seen: Vec<_> = now.since(&before).into_iter().map(ToString::to_string).collect();
    for expected in [
        format!("network namespace {}", netns.path().display()),
        format!("mount {}", netns.path().display()),
        format!("process sleep ({})", sleeper.id()),
    ] {
        assert!(seen.contains(&expected), "{expected} is not in {seen:?}");
    }
}

#[test]
fn the_archive_of_an_image_is_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let archives = ["a.tar", "b.tar"].map(|name| directory.path().join(name));
    for archive in &archives {
        image::write_archive(archive).unwrap();
    }
    let [first, second] = archives.map(|archive| image::sha256(&fs::read(archive).unwrap()));
    assert_eq!(first, second);
}
