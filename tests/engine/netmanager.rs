//! In netmanager's place: notes what it is asked, and agrees or refuses as a test wants. The real one is tried together
//! with node-engine in the end-to-end tests; here it is to fail at the right moment.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::{read_request, write_answer};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: Value,
    /// The program of the process to be connected, when the request came.
    pub(crate) program: String,
}

#[derive(Debug, Default)]
struct Notes {
    requests: Vec<Request>,
    refuses: bool,
}

pub(crate) struct Netmanager {
    socket: PathBuf,
    notes: Arc<Mutex<Notes>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Netmanager {
    pub(crate) fn start(socket: &Path) -> Result<Self> {
        let mut netmanager = Self {
            socket: socket.to_owned(),
            notes: Arc::default(),
            stop: CancellationToken::new(),
            thread: None,
        };
        netmanager.open()?;
        Ok(netmanager)
    }

    /// Listens (again).
    pub(crate) fn open(&mut self) -> Result<()> {
        let listener = UnixListener::bind(&self.socket).context("bind netmanager's socket")?;
        listener.set_nonblocking(true).context("make netmanager's socket non-blocking")?;
        self.stop = CancellationToken::new();
        let (notes, stop) = (Arc::clone(&self.notes), self.stop.clone());
        self.thread = Some(std::thread::spawn(move || {
            while !stop.is_cancelled() {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(&stream, &notes)),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        }));
        Ok(())
    }

    /// As if it were stopped.
    pub(crate) fn close(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        fs::remove_file(&self.socket).ok();
    }

    /// From now on containers are not connected.
    pub(crate) fn refuse(&self) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).refuses = true;
    }

    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.requests.iter().filter(|request| request.path == path).cloned().collect()
    }
}

impl Drop for Netmanager {
    fn drop(&mut self) {
        self.close();
    }
}

fn answer(stream: &UnixStream, notes: &Mutex<Notes>) -> Result<()> {
    stream.set_nonblocking(false)?;
    let (head, body) = read_request(stream)?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body)?;
    let program = fs::read_to_string(format!("/proc/{}/cmdline", body["pid"])).unwrap_or_default();
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    notes.requests.push(Request { path: path.clone(), body: body.clone(), program });
    if path == "/container/deploy" && notes.refuses {
        return write_answer(stream, "500 Internal Server Error", "no address is left in 10.18.0.64/26");
    }
    let attached =
        json!({"serviceName": body["serviceName"], "nsAddress": "10.18.0.66", "nsAddressv6": "fc00::102"});
    write_answer(stream, "200 OK", &attached.to_string())
}
