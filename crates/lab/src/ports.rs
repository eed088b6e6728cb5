//! Ports below the ephemeral range, so that no outgoing connection takes them in between.

use anyhow::{Result, bail};
use std::net::TcpListener;

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// `count` ports in a row that nobody listens on.
pub fn free_ports(count: u16) -> Result<u16> {
    // Labs side by side begin at different places; the bind below is what decides.
    let spread = u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 11;
    let mut candidate = FIRST + spread % (LAST - FIRST);
    for _ in 0..2_000 {
        let held: Vec<_> = (candidate..candidate + count)
            .map_while(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .collect();
        if held.len() == usize::from(count) {
            return Ok(candidate);
        }
        candidate += count;
        if candidate + count > LAST {
            candidate = FIRST;
        }
    }
    bail!("no {count} free ports in a row between {FIRST} and {LAST}")
}
