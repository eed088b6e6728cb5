//! How clusters are laid out: three nodes from configuration files, or a monitor and two nodes
//! from the commands that a person would type.

use super::Cluster;
use crate::{Disk, Host, Lab, Node, Passwords, Place, free_ports, run_to_end};
use anyhow::{Context, Result};
use api::client::{Client, Trust, TrustOptions};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is free to choose about a cluster.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the data directory of every node stands on.
    pub disk: Disk,
    /// What the store's files of every node stand on.
    pub store_disk: Disk,
    /// More of `bootstrap.dcs`, as flow YAML entries: `ttl: 3, loop_wait: 1`.
    pub dcs: String,
    /// Where etcd is, if that is to be the store.
    pub etcd: Vec<String>,
    /// More of `store.raft`, likewise; `NAME` stands for the node's name.
    pub raft: String,
    /// More of `restapi`, likewise.
    pub restapi: String,
    /// The authority of the certificates that `restapi` names, if it does. Beside it lie `NAME.crt` and `NAME.key`
    /// for every node; who asks a node shows its own.
    pub authority: Option<PathBuf>,
    /// More of how nodes come to each other's Postgres, in libpq's words, likewise.
    pub libpq: String,
    /// More of `postgresql.parameters`, likewise.
    pub parameters: String,
    /// More lines of `postgresql`, each indented by two; `NAME` stands for the node's name.
    pub postgresql: String,
    /// The section `proxy`, likewise; `ADDRESS` stands for the node's. Who may connect is the
    /// story's to write down.
    pub proxy: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            disk: Disk::Shared,
            store_disk: Disk::Shared,
            dcs: "synchronous_mode: quorum".to_owned(),
            etcd: Vec::new(),
            raft: String::new(),
            restapi: String::new(),
            authority: None,
            libpq: String::new(),
            parameters: "max_connections: 100".to_owned(),
            postgresql: String::new(),
            proxy: String::new(),
        }
    }
}

/// Entries to follow others in flow YAML.
fn more(entries: &str, name: &str) -> String {
    match entries {
        "" => String::new(),
        entries => format!(", {}", entries.replace("NAME", name)),
    }
}

const SECRET: &str = "planted-cluster-secret-0123456789abcdef0123456789abcdef";

/// The ports of one node.
struct Ports {
    postgres: u16,
    rest: u16,
    store: u16,
}

impl Cluster {
    /// Three nodes n1, n2, n3 without a monitor. Nothing is started yet.
    pub fn three(lab: &mut Lab, shape: &Shape) -> Result<Self> {
        let names = ["n1", "n2", "n3"];
        let hosts = names
            .iter()
            .zip(11..)
            .map(|(name, number)| lab.add_host(name, number))
            .collect::<Result<Vec<_>>>()?;
        let ports = names
            .iter()
            .map(|_| Ports::of(lab.place()))
            .collect::<Result<Vec<_>>>()?;
        let members = hosts
            .iter()
            .zip(&ports)
            .map(|(host, ports)| format!("{}: \"{}:{}\"", host.name(), host.address(), ports.store))
            .collect::<Vec<_>>()
            .join(", ");
        let nodes = hosts
            .into_iter()
            .zip(&ports)
            .map(|(host, ports)| configured(lab, host, ports, &members, shape))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            nodes,
            secret: SECRET.to_owned(),
        })
    }

    /// Two nodes a and b and a monitor, made by `standfast create`. The monitor is started first,
    /// because `create postgres` registers there; the nodes are not started yet.
    pub async fn pair(lab: &mut Lab) -> Result<Self> {
        Self::pair_on(lab, Disk::Shared).await
    }

    /// The same with the data directories on disks of their own.
    pub async fn pair_on(lab: &mut Lab, disk: Disk) -> Result<Self> {
        let secret = write_secret(lab)?;
        let monitor = lab.add_host("monitor", 10)?;
        let hosts = [lab.add_host("a", 11)?, lab.add_host("b", 12)?];
        let first = match lab.place() {
            Place::Namespaces => 6000,
            Place::Loopback => free_ports(3)?,
        };
        let monitor_api = format!("{}:{first}", monitor.address());
        let mut nodes = vec![created_monitor(lab, monitor, first, &secret)?];
        nodes[0].start()?;
        nodes[0].wait_for_api().await?;
        nodes[0].wait_for_store().await?;
        for (host, offset) in hosts.into_iter().zip(1..) {
            let data_dir = data_dir_on(&host, disk)?;
            let port = first + offset;
            let node = created_node(lab, host, port, data_dir, &monitor_api, &secret)?;
            nodes.insert(nodes.len() - 1, node);
        }
        Ok(Self {
            nodes,
            secret: SECRET.to_owned(),
        })
    }

    /// Starts the nodes of a pair; its monitor runs already.
    pub fn start_data_nodes(&mut self) -> Result<()> {
        self.nodes
            .iter_mut()
            .filter(|node| node.pg_port.is_some())
            .try_for_each(Node::start)
    }
}

impl Ports {
    fn of(place: Place) -> Result<Self> {
        match place {
            Place::Namespaces => Ok(Self {
                postgres: 5432,
                rest: 8008,
                store: 8009,
            }),
            Place::Loopback => {
                let first = free_ports(3)?;
                Ok(Self {
                    postgres: first,
                    rest: first + 1,
                    store: first + 2,
                })
            }
        }
    }
}

fn configured(
    lab: &Lab,
    host: Arc<Host>,
    ports: &Ports,
    members: &str,
    shape: &Shape,
) -> Result<Node> {
    let passwords = Passwords::default();
    let base = host.directory().to_owned();
    let disk = base.join("disk");
    host.mount(shape.disk, &disk)?;
    lab.identity().own(&host.outside(&disk))?;
    if shape.store_disk != Disk::Shared {
        host.mount(shape.store_disk, &base.join("store"))?;
    }
    let data_dir = disk.join("data");
    let secret = write_secret(lab)?;
    let file = base.join("node.yml");
    let (name, address) = (host.name(), host.address());
    let Ports {
        postgres,
        rest,
        store: port,
    } = ports;
    let store = match shape.etcd.join(",") {
        none if none.is_empty() => format!(
            "store:
  raft: {{listen: \"{address}:{port}\", data_dir: {base}/store, members: {{{members}}}, secret_file: {secret}{raft}}}",
            base = base.display(),
            secret = secret.display(),
            raft = more(&shape.raft, name),
        ),
        etcd => format!(
            "store: {{secret_file: {}}}\netcd3: {{hosts: \"{etcd}\"}}",
            secret.display()
        ),
    };
    let restapi = more(&shape.restapi, name);
    let libpq = more(&shape.libpq, name);
    let proxy = match shape.proxy.as_str() {
        "" => String::new(),
        proxy => format!("proxy: {{{}}}\n", proxy.replace("ADDRESS", address)),
    };
    let text = format!(
        "scope: lab
name: {name}
{store}
restapi: {{listen: \"{address}:{rest}\", connect_address: \"{address}:{rest}\", authentication: {{username: admin, password: {rest_password}}}{restapi}}}
bootstrap: {{dcs: {{{dcs}}}}}
state_dir: {base}/state
postgresql:
  listen: \"{address}:{postgres}\"
  connect_address: \"{address}:{postgres}\"
  data_dir: {data}
  bin_dir: {bin}
  pg_hba: [\"local all all trust\", \"host all all 0.0.0.0/0 scram-sha-256\"]
  authentication: {{superuser: {{username: postgres, password: {superuser}}}, replication: {{username: replicator, password: {replication}{libpq}}}, rewind: {{username: rewind, password: {rewind}{libpq}}}}}
  parameters: {{unix_socket_directories: {base}/run, {parameters}}}
{postgresql}{proxy}",
        base = base.display(),
        dcs = shape.dcs,
        parameters = shape.parameters.replace("NAME", name),
        postgresql = shape.postgresql.replace("NAME", name),
        data = data_dir.display(),
        bin = host.pg_bin().display(),
        superuser = passwords.superuser,
        rest_password = passwords.rest,
        replication = passwords.replication,
        rewind = passwords.rewind,
    );
    write_private(lab, &file, &text)?;
    let https = shape.authority.clone().map(|authority| {
        let beside = |ending| authority.with_file_name(format!("{name}.{ending}"));
        Client::new(Trust::new(TrustOptions {
            own: Some((beside("crt"), beside("key"))),
            authority: Some(authority),
            ..TrustOptions::default()
        }))
    });
    Ok(Node {
        name: name.to_owned(),
        api: format!("{address}:{rest}"),
        pg_port: Some(*postgres),
        data_dir,
        run: vec!["run".to_owned(), file.display().to_string()],
        environment: Vec::new(),
        binary: lab.binary().to_owned(),
        superuser: "postgres".to_owned(),
        password: Some(passwords.superuser),
        agent: None,
        https,
        host,
    })
}

/// Where the data directory of a host is to be made.
fn data_dir_on(host: &Host, disk: Disk) -> Result<PathBuf> {
    if disk == Disk::Shared {
        return Ok(host.directory().join("data"));
    }
    let mounted = host.directory().join("disk");
    host.mount(disk, &mounted)?;
    Ok(mounted.join("data"))
}

fn created_monitor(lab: &Lab, host: Arc<Host>, port: u16, secret: &Path) -> Result<Node> {
    let data_dir = host.directory().join("monitor");
    let node = Node {
        name: host.name().to_owned(),
        api: format!("{}:{port}", host.address()),
        pg_port: None,
        run: run_by_pgdata(&data_dir),
        environment: vec![secret_variable(secret)],
        binary: lab.binary().to_owned(),
        superuser: String::new(),
        password: None,
        agent: None,
        https: None,
        data_dir,
        host,
    };
    let (data, port) = (node.data_dir.display().to_string(), port.to_string());
    let hostname = node.host.address().to_owned();
    run_to_end(&mut node.standfast(&[
        "create",
        "monitor",
        "--pgdata",
        &data,
        "--pgport",
        &port,
        "--hostname",
        &hostname,
    ]))?;
    Ok(node)
}

fn created_node(
    lab: &Lab,
    host: Arc<Host>,
    port: u16,
    data_dir: PathBuf,
    monitor: &str,
    secret: &Path,
) -> Result<Node> {
    let mut node = Node {
        name: host.name().to_owned(),
        api: String::new(),
        pg_port: Some(port),
        run: run_by_pgdata(&data_dir),
        data_dir,
        environment: vec![secret_variable(secret)],
        binary: lab.binary().to_owned(),
        superuser: "postgres".to_owned(),
        password: None,
        agent: None,
        https: None,
        host,
    };
    let (data, port) = (node.data_dir.display().to_string(), port.to_string());
    let hostname = node.host.address().to_owned();
    let pg_ctl = node.host.pg_bin().join("pg_ctl").display().to_string();
    let name = node.name.clone();
    run_to_end(&mut node.standfast(&[
        "create",
        "postgres",
        "--pgdata",
        &data,
        "--pgport",
        &port,
        "--hostname",
        &hostname,
        "--name",
        &name,
        "--pgctl",
        &pg_ctl,
        "--auth",
        "trust",
        "--pg-hba-lan",
        "--username",
        "postgres",
        "--monitor",
        monitor,
    ]))?;
    node.api = api_of_created(&node)?;
    Ok(node)
}

/// `create` chooses the port of the REST interface; its configuration file says which.
fn api_of_created(node: &Node) -> Result<String> {
    let home = node.host.home().join(".config/standfast");
    let text = find_configuration(&home, &node.data_dir).with_context(|| {
        format!(
            "no configuration file for {} in {}",
            node.name,
            home.display()
        )
    })?;
    let section = text
        .split("restapi:")
        .nth(1)
        .context("no restapi in the configuration")?;
    let address = section
        .split("connect_address:")
        .nth(1)
        .context("no connect_address")?;
    let address = address.trim_start().trim_start_matches(['"', '\'']);
    let end = address.find(|c: char| matches!(c, '"' | '\'' | ',' | '}') || c.is_whitespace());
    Ok(address[..end.unwrap_or(address.len())].to_owned())
}

fn find_configuration(directory: &Path, data_dir: &Path) -> Option<String> {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "yml") {
                let text = fs::read_to_string(&path).ok()?;
                if text.contains(&data_dir.display().to_string()) {
                    return Some(text);
                }
            }
        }
    }
    None
}

fn run_by_pgdata(data_dir: &Path) -> Vec<String> {
    ["run", "--pgdata", &data_dir.display().to_string()]
        .map(str::to_owned)
        .to_vec()
}

fn secret_variable(file: &Path) -> (String, String) {
    (
        "STANDFAST_SECRET_FILE".to_owned(),
        file.display().to_string(),
    )
}

fn write_secret(lab: &Lab) -> Result<PathBuf> {
    let file = lab.path().join("secret");
    if !file.exists() {
        write_private(lab, &file, &format!("{SECRET}\n"))?;
    }
    Ok(file)
}

pub(super) fn write_private(lab: &Lab, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    lab.identity().own(file)
}

/// The bearer token of the REST interface: the hexadecimal HMAC-SHA-256 of a fixed text under the
/// cluster secret.
pub(super) fn bearer(secret: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).context("key the HMAC")?;
    mac.update(b"standfast api");
    let mut text = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}
