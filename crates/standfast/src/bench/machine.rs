//! On what the figures were measured: figures without it say nothing.

use serde::Serialize;
use std::fs;
use std::path::Path;

/// The machine in a few words.
#[derive(Clone, Debug, Serialize)]
pub(in crate::bench) struct Machine {
    pub(in crate::bench) cpu: String,
    pub(in crate::bench) cores: usize,
    pub(in crate::bench) memory_mb: u64,
    pub(in crate::bench) kernel: String,
    pub(in crate::bench) postgres: String,
    pub(in crate::bench) standfast: String,
}

pub(in crate::bench) fn describe(pg_bin: Option<&Path>) -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes: Option<u64> = memory
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|text| text.parse().ok());
    Machine {
        cpu: cpu.unwrap_or("unknown").to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mb: kilobytes.unwrap_or_default() / 1024,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        postgres: postgres(pg_bin).unwrap_or_else(|| "unknown".to_owned()),
        standfast: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn postgres(pg_bin: Option<&Path>) -> Option<String> {
    let directory = pg_bin.map_or_else(|| lab::postgres_bin_dir().ok(), |bin| Some(bin.to_owned()));
    let binary = directory?.join("postgres");
    let text = lab::run_to_end(std::process::Command::new(binary).arg("--version")).ok()?;
    Some(text.trim().to_owned())
}
