//! Hosts as network namespaces on a bridge that stands in a namespace of its own.
//!
//! **Invariant:** every name begins with `sf-<pid of the maker>-`; what a dead maker left behind is
//! cleared away by the next one, and nothing else is ever deleted.

use crate::processes::Selection;
use crate::run_to_end;
use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A bridge, a client and the hosts plugged into it.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hosts: Vec<Plug>,
}

#[derive(Debug)]
struct Plug {
    name: String,
    address: String,
}

impl Network {
    /// A bridge with one client on it.
    pub fn build(number: u32) -> Result<Self> {
        sweep();
        let network = Self {
            prefix: format!("sf-{}-{number}-", std::process::id()),
            hosts: Vec::new(),
        };
        ip(&["netns", "add", &network.bridge()])?;
        let bridge = network.bridge();
        ip(&["-n", &bridge, "link", "set", "lo", "up"])?;
        ip(&[
            "-n",
            &bridge,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "forward_delay",
            "0",
        ])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        let mut network = network;
        network.plug("client", "10.77.0.1")?;
        Ok(network)
    }

    pub(crate) fn bridge(&self) -> String {
        format!("{}bridge", self.prefix)
    }

    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// A new host with its address in 10.77.0.0/24.
    pub fn plug(&mut self, name: &str, address: &str) -> Result<()> {
        let (host, bridge) = (self.namespace(name), self.bridge());
        let port = format!("p{}", self.hosts.len());
        ip(&["netns", "add", &host])?;
        self.hosts.push(Plug {
            name: name.to_owned(),
            address: address.to_owned(),
        });
        ip(&["-n", &host, "link", "set", "lo", "up"])?;
        ip(&[
            "-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &host,
        ])?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
        ip(&[
            "-n",
            &host,
            "addr",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ])?;
        ip(&["-n", &host, "link", "set", "eth0", "up"])?;
        Ok(())
    }

    /// Pulls or puts back the cable at the switch: no RST, no error, only silence.
    pub fn set_link(&self, host: &str, up: bool) -> Result<()> {
        let port = format!("p{}", self.number(host)?);
        ip(&[
            "-n",
            &self.bridge(),
            "link",
            "set",
            &port,
            if up { "up" } else { "down" },
        ])?;
        Ok(())
    }

    /// Drops what `from` sends to `to`, and only that direction, without a word to the sender:
    /// the neighbour's hardware address is made one that nobody has.
    pub fn drop_one_way(&self, from: &str, to: &str) -> Result<()> {
        let to = self.address(to)?;
        ip(&[
            "-n",
            &self.namespace(from),
            "neigh",
            "replace",
            &to,
            "lladdr",
            "02:00:00:00:00:01",
            "dev",
            "eth0",
            "nud",
            "permanent",
        ])?;
        Ok(())
    }

    /// Undoes [`Self::drop_one_way`].
    pub fn restore_one_way(&self, from: &str, to: &str) -> Result<()> {
        let to = self.address(to)?;
        ip(&[
            "-n",
            &self.namespace(from),
            "neigh",
            "del",
            &to,
            "dev",
            "eth0",
        ])?;
        Ok(())
    }

    fn number(&self, host: &str) -> Result<usize> {
        self.hosts
            .iter()
            .position(|plug| plug.name == host)
            .with_context(|| format!("no host {host} on this network"))
    }

    fn address(&self, host: &str) -> Result<String> {
        Ok(self.hosts[self.number(host)?].address.clone())
    }

    /// Moves the calling thread, and the threads that it will start, to the client's place.
    pub(crate) fn enter_as_client(&self) -> Result<()> {
        let path = path_of(&self.namespace("client"));
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("move the thread into the client's network namespace")
    }

    pub(crate) fn selection(&self, host: &str) -> Result<Selection> {
        let path = path_of(&self.namespace(host));
        let meta = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        Ok(Selection::NetworkNamespace(meta.ino()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in namespaces()
            .iter()
            .filter(|name| name.starts_with(&self.prefix))
        {
            clear_away(name);
        }
    }
}

pub(crate) fn path_of(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

fn ip(arguments: &[&str]) -> Result<String> {
    run_to_end(Command::new("ip").args(arguments))
}

fn namespaces() -> Vec<String> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Clears away what makers that are dead could not.
fn sweep() {
    for name in namespaces() {
        let maker = name
            .strip_prefix("sf-")
            .and_then(|rest| rest.split('-').next());
        let Some(maker) = maker.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{maker}")).exists() {
            clear_away(&name);
        }
    }
}

/// Best effort: the processes inside, then the namespace.
fn clear_away(name: &str) {
    if let Ok(meta) = fs::metadata(path_of(name)) {
        let inside = Selection::NetworkNamespace(meta.ino());
        crate::disk::thaw_whatever_is_frozen(&inside);
        let _ = inside.kill_all(Duration::from_secs(5));
    }
    let _ = ip(&["netns", "del", name]);
}
