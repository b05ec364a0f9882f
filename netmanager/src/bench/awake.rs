//! Keeping CPUs awake: waking one from its sleep may take longer than a packet's whole way, and differs from time to time.

use std::hint::spin_loop;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

use super::pin;

/// As long as this lives, a thread spins on each CPU that the process may use, with a priority at which anything else goes
/// before it (`SCHED_IDLE`).
#[derive(Debug)]
pub struct Awake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Awake {
    /// # Errors
    /// When the kernel refuses to start a thread.
    pub fn keep() -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut awake = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for cpu in (0..nix::sched::CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)) {
            let stop = Arc::clone(&awake.stop);
            let spin = move || {
                pin(cpu)?;
                yield_to_all()?;
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
                Ok(())
            };
            awake.threads.push(thread::Builder::new().name("bench-awake".to_owned()).spawn(spin)?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that could not spin has only left its CPU to sleep.
            thread.join().ok();
        }
    }
}

/// Of the calling thread.
fn yield_to_all() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the struct lives during the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
