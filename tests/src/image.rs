//! An OCI image without a registry: Debian's static busybox with a small web site, as an archive that
//! `ctr image import` takes.
//!
//! The web server (`httpd`) and the clients (`wget`, `nc`, `ping`) in it are nobody's here, which is what a test
//! wants to talk through the overlay. The site has two pages: `/` says which instance answers whom, and
//! `/cgi-bin/stream` is a download of some ten seconds with always the same bytes.
//!
//! The same busybox gives the same archive, byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process;

/// The name under which the image is imported, and which an SLA's `code` gives.
pub const REFERENCE: &str = "docker.io/hypha/busybox:1";

/// The page that is a slow download, and how many bytes it has.
pub const STREAM_PATH: &str = "/cgi-bin/stream";

const BUSYBOX: &str = "/bin/busybox";
const PAGES: [(&str, &str); 2] = [
    ("www/cgi-bin/index.cgi", include_str!("../image/index.cgi")),
    ("www/cgi-bin/stream", include_str!("../image/stream.cgi")),
];

/// In what an image differs from the standard one.
#[derive(Debug, Clone, Copy)]
pub struct Variant<'a> {
    pub reference: &'a str,
    /// By Go's name.
    pub architecture: &'a str,
    /// Under whom its program runs. When it is not empty there is a second layer, in which `web` has an account.
    pub user: &'a str,
}

impl Default for Variant<'_> {
    fn default() -> Self {
        Self { reference: REFERENCE, architecture: architecture(), user: "" }
    }
}

/// Writes the archive of the standard image to `path`.
pub fn write_archive(path: &Path) -> Result<()> {
    write_variant(path, &Variant::default())
}

/// Writes the archive of an image that differs from the standard one to `path`.
pub fn write_variant(path: &Path, variant: &Variant) -> Result<()> {
    let busybox = fs::read(BUSYBOX)
        .with_context(|| format!("read {BUSYBOX}; it is in Debian's package busybox-static"))?;
    ensure!(
        is_static(&busybox),
        "{BUSYBOX} needs a dynamic linker, which the image has not: install Debian's package busybox-static"
    );
    let mut layers = vec![layer(&busybox, &applets()?)?];
    if !variant.user.is_empty() {
        layers.push(accounts_layer()?);
    }

    let mut blobs = BTreeMap::new();
    let layers: Vec<(String, usize)> = layers
        .into_iter()
        .map(|layer| {
            let size = layer.len();
            (add_blob(&mut blobs, layer), size)
        })
        .collect();
    let config = json!({
        "architecture": variant.architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/", "User": variant.user },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|(digest, _)| digest).collect::<Vec<_>>(),
        },
    });
    let (config, config_size) = add_json(&mut blobs, &config);
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size)| descriptor("application/vnd.oci.image.layer.v1.tar", digest, *size))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config, config_size),
        "layers": layers,
    });
    let (manifest, manifest_size) = add_json(&mut blobs, &manifest);
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest, manifest_size);
    entry["annotations"] = json!({ "io.containerd.image.name": variant.reference });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });

    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut archive = Archive::new(file);
    archive.file("oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
    archive.file("index.json", 0o644, index.to_string().as_bytes())?;
    for (digest, content) in &blobs {
        archive.file(&format!("blobs/sha256/{digest}"), 0o644, content)?;
    }
    archive.finish()?.sync_all().with_context(|| format!("write {}", path.display()))
}

/// The bytes of [`STREAM_PATH`], for comparison: the numbers that its script counts, one a line.
#[must_use]
pub fn stream() -> Vec<u8> {
    (1..=600_000).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layer(busybox: &[u8], applets: &[String]) -> Result<Vec<u8>> {
    let mut layer = Archive::new(Vec::new());
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "www", "www/cgi-bin"] {
        layer.directory(directory, 0o755)?;
    }
    layer.directory("tmp", 0o1777)?;
    layer.file("bin/busybox", 0o755, busybox)?;
    for applet in applets {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    layer.file("etc/group", 0o644, b"root:x:0:\n")?;
    for (path, script) in PAGES {
        layer.file(path, 0o755, script.as_bytes())?;
    }
    layer.finish()
}

fn accounts_layer() -> Result<Vec<u8>> {
    let mut layer = Archive::new(Vec::new());
    layer.directory("etc", 0o755)?;
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/www:/bin/sh\n")?;
    layer.file("etc/group", 0o644, b"root:x:0:\nweb:x:33:\n")?;
    layer.finish()
}

/// The programs that this busybox can be called as.
fn applets() -> Result<Vec<String>> {
    let mut applets: Vec<String> = process::output(Command::new(BUSYBOX).arg("--list"))?
        .lines()
        .filter(|applet| *applet != "busybox")
        .map(str::to_owned)
        .collect();
    applets.sort_unstable();
    Ok(applets)
}

/// A dynamic program names its linker near its beginning.
fn is_static(program: &[u8]) -> bool {
    let head = &program[..program.len().min(4096)];
    !head.windows(4).any(|bytes| bytes == b"/ld-")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn add_blob(blobs: &mut BTreeMap<String, Vec<u8>>, content: Vec<u8>) -> String {
    let digest = sha256(&content);
    let named = format!("sha256:{digest}");
    blobs.insert(digest, content);
    named
}

fn add_json(blobs: &mut BTreeMap<String, Vec<u8>>, document: &Value) -> (String, usize) {
    let content = document.to_string().into_bytes();
    let size = content.len();
    (add_blob(blobs, content), size)
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// A tar archive whose entries belong to root and are as old as time itself.
struct Archive<W: Write>(tar::Builder<W>);

impl<W: Write> Archive<W> {
    fn new(writer: W) -> Self {
        Self(tar::Builder::new(writer))
    }

    fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(&format!("{path}/"), tar::EntryType::Directory, mode, &[])
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, content)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).with_context(|| format!("add {path} to an archive"))
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = header(kind, mode, content.len());
        self.0.append_data(&mut header, path, content).with_context(|| format!("add {path} to an archive"))
    }

    fn finish(self) -> Result<W> {
        self.0.into_inner().context("end an archive")
    }
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

#[cfg(test)]
mod tests {
    use super::stream;

    #[test]
    fn the_stream_is_what_its_script_counts() {
        let script = include_str!("../image/stream.cgi").replace("usleep 50000", "");
        let written = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap().stdout;
        let body = written.split_at(written.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4).1;
        assert!(body == stream(), "{} bytes instead of {}", body.len(), stream().len());
    }
}
