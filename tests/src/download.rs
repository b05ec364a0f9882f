//! A download that is watched while it runs.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::container::Container;
use crate::wait::eventually;

/// The image's `wget`, running in a container.
#[derive(Debug)]
pub struct Download {
    wget: Child,
    received: Arc<AtomicUsize>,
    reader: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
}

impl Download {
    pub fn start(client: &Container, url: &str) -> Result<Self> {
        let mut wget = client
            .command(&["wget", "-qO-", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a download")?;
        let mut body = wget.stdout.take().context("the output of wget")?;
        let received = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&received);
        let reader = thread::spawn(move || {
            let mut content = Vec::new();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match body.read(&mut buffer)? {
                    0 => return Ok(content),
                    count => content.extend_from_slice(&buffer[..count]),
                }
                counter.store(content.len(), Ordering::Relaxed);
            }
        });
        Ok(Self { wget, received, reader: Some(reader) })
    }

    /// How much has come so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for the end and gives the content.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        let status =
            eventually(Duration::from_secs(60), "the end of the download", || match self.wget.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(format!("{} bytes", self.bytes())),
                Err(error) => Err(error.to_string()),
            })?;
        ensure!(status.success(), "wget ended with {status} after {} bytes", self.bytes());
        let reader = self.reader.take().context("a download is finished once")?;
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("read a download")
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.wget.kill().ok();
        self.wget.wait().ok();
    }
}
