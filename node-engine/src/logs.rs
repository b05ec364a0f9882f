//! The log of an instance: one file, appended to by the container's shim, kept short by this daemon.
//!
//! The shim holds the file open for as long as the container lives, so the file cannot be moved away. Instead its
//! content is copied to `<file>.1` and the file is cut to nothing; the shim appends, so it goes on at the new end. At
//! most what is written between copy and cut is lost, and only by an instance that writes megabytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::name::InstanceName;

/// A log that is longer than this is put aside. It is looked at with every report, so it can grow a little longer.
const LENGTH_MAX: u64 = 10 << 20;
/// Logs of instances that are gone stay, so that one can see why they went; the oldest beyond this many are removed.
const KEPT_MAX: usize = 100;

/// Makes an empty log that only root and its group can read. An existing one is kept: a restarted instance goes on
/// in it.
pub fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    Ok(())
}

/// The last `length` bytes of the log at `path`, as text that begins at a character; empty when there is no log.
#[must_use]
pub fn tail(path: &Path, length: usize) -> String {
    let mut bytes = last_bytes(path, length).unwrap_or_default();
    if bytes.len() < length
        && let Ok(mut before) = last_bytes(&aside(path), length - bytes.len())
    {
        before.append(&mut bytes);
        bytes = before;
    }
    let begin = bytes.iter().take(4).take_while(|&&byte| byte & 0b1100_0000 == 0b1000_0000).count();
    let mut text = String::from_utf8_lossy(&bytes[begin..]).into_owned();
    // A byte that is no text has become a character of three: keep the promised length.
    while text.len() > length {
        text.remove(0);
    }
    text
}

/// The last line in the log with anything in it.
#[must_use]
pub fn last_line(path: &Path) -> String {
    let tail = tail(path, 1024);
    tail.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// Puts the log aside when it has grown too long.
pub fn shorten(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.len() <= LENGTH_MAX {
        return Ok(());
    }
    fs::copy(path, aside(path))?;
    OpenOptions::new().write(true).truncate(true).open(path)?;
    Ok(())
}

/// Removes the oldest logs of instances that are not `alive`. Other files in the directory are left alone.
pub fn prune(directory: &Path, alive: impl Fn(&InstanceName) -> bool) -> io::Result<()> {
    let mut gone = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name: Option<InstanceName> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if name.is_some_and(|name| !alive(&name)) {
            gone.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    gone.sort_unstable();
    let surplus = gone.len().saturating_sub(KEPT_MAX);
    for (_, path) in gone.into_iter().take(surplus) {
        for path in [aside(&path), path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

fn last_bytes(path: &Path, length: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(end.saturating_sub(length)))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    use super::{LENGTH_MAX, create, last_line, prune, shorten, tail};

    #[test]
    fn the_tail_is_text_of_at_most_the_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert_eq!(tail(&path, 8), "");
        fs::write(&path, "one\ntwo ä\n").unwrap();
        assert_eq!(tail(&path, 100), "one\ntwo ä\n");
        // The cut falls into the middle of `ä`.
        assert_eq!(tail(&path, 2), "\n");
        fs::write(&path, [0xff; 50]).unwrap();
        assert!(tail(&path, 10).len() <= 10);
    }

    #[test]
    fn the_last_line_is_the_last_one_with_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "starting\nbind: address in use\n\n").unwrap();
        assert_eq!(last_line(&path), "bind: address in use");
    }

    #[test]
    fn a_long_log_is_put_aside_while_its_writer_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        create(&path).unwrap();
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        writer.write_all(&vec![b'x'; usize::try_from(LENGTH_MAX).unwrap()]).unwrap();
        shorten(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), LENGTH_MAX);
        writer.write_all(b"y").unwrap();
        shorten(&path).unwrap();
        writer.write_all(b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(tail(&path, 7), "xyafter");
    }

    #[test]
    fn only_the_oldest_logs_of_gone_instances_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..103 {
            let path = directory.path().join(format!("a.b.c.d.instance.{number}"));
            let file = File::create(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number)).unwrap();
        }
        fs::write(directory.path().join("other"), "").unwrap();
        prune(directory.path(), |name| name.number == 0).unwrap();
        let exists = |name: &str| directory.path().join(name).exists();
        assert!(exists("a.b.c.d.instance.0") && exists("other") && exists("a.b.c.d.instance.3"));
        assert!(!exists("a.b.c.d.instance.1") && !exists("a.b.c.d.instance.2"));
    }
}
