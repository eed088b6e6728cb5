//! Ports below the ephemeral range, so that no outgoing connection takes them in between.

use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// Where the last search of this process ended: what was given away once is not given again,
/// though its new owner may not have bound it yet.
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// Listens there. A child that another test starts just now holds what the search has listened on, until it has become
/// its program.
pub fn take_port(port: u16) -> Result<TcpListener> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound => return bound.with_context(|| format!("listen at port {port}")),
        }
    }
}

/// `count` ports in a row that nobody listens on.
pub fn free_ports(count: u16) -> Result<u16> {
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes side by side begin at different places; the bind below is what decides.
    let spread = u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 11;
    let mut candidate = next.unwrap_or(FIRST + spread % (LAST - FIRST));
    for _ in 0..2_000 {
        if candidate + count > LAST {
            candidate = FIRST;
        }
        let held: Vec<_> = (candidate..candidate + count)
            .map_while(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .collect();
        if held.len() == usize::from(count) {
            *next = Some(candidate + count);
            return Ok(candidate);
        }
        candidate += count;
    }
    bail!("no {count} free ports in a row between {FIRST} and {LAST}")
}
