//! A DNS server of the lab's own, and hosts that ask it.

use crate::{Host, Lab, eventually};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// dnsmasq, on a host of its own; it answers for `.test`, and is asked by whom [`Dns::serve`] names.
#[derive(Debug)]
pub struct Dns {
    host: Arc<Host>,
    server: Option<Child>,
}

impl Dns {
    /// A host for it. It does not run yet.
    pub fn new(lab: &mut Lab) -> Result<Self> {
        let host = lab.add_host("dns", 53)?;
        let dns = Self { host, server: None };
        dns.serve(&dns.host)?;
        Ok(dns)
    }

    /// From now on `host` has this server in its `/etc/resolv.conf`.
    pub fn serve(&self, host: &Host) -> Result<()> {
        let file = host.directory().join("resolv.conf");
        let text = format!("nameserver {}\n", self.host.address());
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let mut mount = host.as_root("mount")?;
        mount.arg("--bind").arg(&file).arg("/etc/resolv.conf");
        crate::run_to_end(&mut mount).map(drop)
    }

    /// Runs with these records and no others: options of dnsmasq's.
    pub async fn answer(&mut self, records: &[String]) -> Result<()> {
        self.stop()?;
        let mut command = self.host.as_root("dnsmasq")?;
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user="]);
        command.args(["--no-resolv", "--no-hosts", "--pid-file=", "--local=/test/"]);
        command.args(["--log-facility=-", "--host-record=here.test,127.0.0.1"]);
        let quiet = command.args(records).stdin(Stdio::null());
        quiet.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn().context("start dnsmasq")?;
        self.server = Some(child);
        let what = "dnsmasq answers";
        eventually(what, Duration::from_secs(20), async || {
            let mut ask = self.host.as_root("getent")?;
            let found = ask.args(["hosts", "here.test"]).output()?;
            ensure!(found.status.success(), "not yet");
            Ok(())
        })
        .await
    }

    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            self.host.kill_everything()?;
            server.wait()?;
        }
        Ok(())
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
