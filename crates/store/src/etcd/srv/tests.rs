//! Against a real DNS server.

use super::*;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const DOMAIN: &str = "lab.test";

struct Dns {
    server: Child,
    port: u16,
}

impl Dns {
    /// `records`: `NAME,TARGET,PORT[,PRIORITY[,WEIGHT]]`.
    ///
    /// A port that is free for a moment may be somebody's a moment later, or a connection's: then another one is.
    async fn with(records: &[&str]) -> Self {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut dns = Self::start(records);
            while dns.server.try_wait().unwrap().is_none() {
                let Err(error) = ask(&dns.resolver(), DOMAIN).await else {
                    return dns;
                };
                assert!(
                    Instant::now() < deadline,
                    "dnsmasq does not answer: {error:?}"
                );
            }
            assert!(Instant::now() < deadline, "dnsmasq does not run");
        }
    }

    fn start(records: &[&str]) -> Self {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // An ordinary user's PATH may not name it.
        let program = Path::new("/usr/sbin/dnsmasq");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user="]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces"]);
        command.args([
            "--pid-file=",
            "--log-facility=-",
            "--local=/test/",
            "--listen-address=127.0.0.1",
        ]);
        command.arg(format!("--port={port}"));
        for record in records {
            command.arg(format!("--srv-host={record}"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            server: command.spawn().expect("setpriv"),
            port,
        }
    }

    fn resolver(&self) -> TokioResolver {
        let here = Ipv4Addr::LOCALHOST.into();
        let at = |mut it: ConnectionConfig| {
            it.port = self.port;
            it
        };
        let ways = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
        let server = NameServerConfig::new(here, true, ways);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        builder.options_mut().timeout = Duration::from_millis(300);
        builder.build().unwrap()
    }

    async fn look_up(&self, suffix: Option<&str>, https: bool) -> Found {
        let srv = EtcdSrv {
            domain: DOMAIN.to_owned(),
            suffix: suffix.map(str::to_owned),
        };
        let tls = https.then(|| EtcdTls {
            authority: "/ca".into(),
            client: None,
        });
        look_up(&self.resolver(), &srv, tls.as_ref()).await
    }
}

type Found = Result<Vec<String>, String>;

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn named(found: Found) -> String {
    found.unwrap().join(" ")
}

#[tokio::test]
async fn clients_names_come_first_and_tls_has_names_of_its_own() {
    let dns = Dns::with(&[
        "_etcd-client._tcp.lab.test,e2.lab.test,2379,20",
        "_etcd-client._tcp.lab.test,e1.lab.test,2379,10,1",
        "_etcd-client._tcp.lab.test,e3.lab.test,2379,10,2",
        "_etcd._tcp.lab.test,old.lab.test,4001",
        "_etcd-ssl._tcp.lab.test,safe.lab.test,2379",
        "_etcd-client-ssl-two._tcp.lab.test,safe2.lab.test,2379",
        "_etcd-two._tcp.lab.test,e9.lab.test,2379",
    ])
    .await;
    let all = "e3.lab.test:2379 e1.lab.test:2379 e2.lab.test:2379";
    assert_eq!(named(dns.look_up(None, false).await), all);
    assert_eq!(named(dns.look_up(None, true).await), "safe.lab.test:2379");
    let two = Some("two");
    assert_eq!(named(dns.look_up(two, false).await), "e9.lab.test:2379");
    assert_eq!(named(dns.look_up(two, true).await), "safe2.lab.test:2379");
    let nobody = dns.look_up(Some("three"), false).await.unwrap_err();
    assert_eq!(
        nobody,
        "DNS names no _etcd-client-three._tcp.lab.test, _etcd-three._tcp.lab.test, _etcd-server-three._tcp.lab.test"
    );
}

#[tokio::test]
async fn dns_neither_takes_encryption_away_nor_brings_it() {
    let dns = Dns::with(&["_etcd-client._tcp.lab.test,e1.lab.test,2379"]).await;
    let why = dns.look_up(None, true).await.unwrap_err();
    assert!(
        why.ends_with("it means HTTP, and etcd3 says HTTPS"),
        "{why}"
    );
    let dns = Dns::with(&["_etcd-client-ssl._tcp.lab.test,e1.lab.test,2379"]).await;
    let why = dns.look_up(None, false).await.unwrap_err();
    assert!(why.ends_with("which needs etcd3.cacert"), "{why}");
}

/// More than a datagram holds: the answer comes by TCP.
#[tokio::test]
async fn an_answer_may_be_long() {
    let host = |number| {
        format!("_etcd-client._tcp.lab.test,a-long-name-of-a-machine-{number}.lab.test,2379")
    };
    let records: Vec<String> = (0..60).map(host).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let dns = Dns::with(&records).await;
    assert_eq!(dns.look_up(None, false).await.unwrap().len(), 60);
}

#[tokio::test]
async fn a_dns_server_that_is_away_is_named() {
    let dns = Dns::with(&[]).await;
    let srv = EtcdSrv {
        domain: DOMAIN.to_owned(),
        suffix: None,
    };
    let resolver = dns.resolver();
    drop(dns);
    let why = look_up(&resolver, &srv, None).await.unwrap_err();
    let expected = "DNS does not answer for _etcd-client._tcp.lab.test: ";
    assert!(why.starts_with(expected), "{why}");
}
