//! TLS on both sides, and who is let in by what a connection tells of itself.

use crate::server::{PASSWORD, Running, Server, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, ClientTls, Hba, ServerTls, SslMode, TlsFiles, Users};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

const SOON: Duration = Duration::from_secs(60);

/// An authority and what it has signed, as files beside a server's.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(server: &Server, name: &str) -> Result<Self> {
        let directory = server.directory().join(name);
        std::fs::create_dir(&directory)?;
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        std::fs::write(directory.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        Ok(Self { directory, issuer })
    }

    /// A certificate for a host, whose common name is `name`. What was there is replaced.
    pub(crate) fn sign(&self, server: &Server, name: &str, host: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        for (kind, text) in [("crt", certificate.pem()), ("key", key.serialize_pem())] {
            let file = self.directory.join(format!("{name}.{kind}"));
            std::fs::write(&file, text)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            server.own(&file)?;
        }
        Ok(())
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    pub(crate) fn files(&self, mode: SslMode, name: &str) -> TlsFiles {
        TlsFiles {
            mode,
            certificate: Some(self.path(&format!("{name}.crt"))),
            key: Some(self.path(&format!("{name}.key"))),
            authority: Some(self.path("ca.crt")),
        }
    }
}

fn conninfo(proxy: &Running, more: &str) -> String {
    let port = proxy.address.port();
    format!("host=127.0.0.1 port={port} user=app dbname=app password={PASSWORD} {more}")
}

/// Makes the server speak TLS by a certificate of the authority.
fn with_tls(server: &Server, authority: &Authority) -> Result<()> {
    authority.sign(server, "server", "127.0.0.1")?;
    for (key, file) in [
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
    ] {
        let path = authority.path(file).display().to_string();
        server.psql(&format!("alter system set {key} = '{path}'"))?;
    }
    let path = authority.path("ca.crt").display().to_string();
    server.psql(&format!("alter system set ssl_ca_file = '{path}'"))?;
    server.psql("alter system set ssl = on")?;
    server.down("fast")?;
    server.up()
}

fn rules(server: &Server, text: &str) -> Result<()> {
    let file = server.directory().join("data/pg_hba.conf");
    std::fs::write(file, format!("local all all trust\n{text}\n"))?;
    server.psql("select pg_reload_conf()").map(drop)
}

const WHO: &str = "select usename, ssl from pg_stat_ssl join pg_stat_activity using (pid) \
                   where pid = pg_backend_pid()";

#[test]
fn clients_speak_tls_as_the_mode_says() {
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        authority.sign(server, "app", "nowhere")?;
        let ask = |proxy: &Running, more: &str| server.psql_by(&conninfo(proxy, more), "select 7");
        let own = |name: &str| {
            let at = |kind: &str| {
                authority
                    .path(&format!("{name}.{kind}"))
                    .display()
                    .to_string()
            };
            format!("sslcert={} sslkey={}", at("crt"), at("key"))
        };
        let root = format!("sslrootcert={}", authority.path("ca.crt").display());
        for mode in [
            SslMode::Disable,
            SslMode::Allow,
            SslMode::Prefer,
            SslMode::Require,
            SslMode::VerifyCa,
            SslMode::VerifyFull,
        ] {
            let tls = ClientTls::load(&authority.files(mode, "proxy"))?;
            let proxy = server
                .proxy_with(|options| options.client_tls = tls)
                .await?;
            let plain = ask(&proxy, "sslmode=disable")?;
            let required = ask(&proxy, "sslmode=require")?;
            let by_name = ask(&proxy, &format!("sslmode=verify-full {root}"))?;
            let certified = ask(
                &proxy,
                &format!("sslmode=verify-full {root} {}", own("app")),
            )?;
            let bound = format!("sslmode=require channel_binding=require {}", own("app"));
            let bound = ask(&proxy, &bound)?;
            let right = |text: &str| text == "7";
            let expected = match mode {
                SslMode::Disable => [true, false, false, false, false],
                SslMode::Allow | SslMode::Prefer => [true; 5],
                SslMode::Require => [false, true, true, true, true],
                SslMode::VerifyCa | SslMode::VerifyFull => [false, false, false, true, true],
            };
            let said = [plain, required, by_name, certified, bound];
            ensure!(
                said.each_ref().map(|text| right(text)) == expected,
                "{mode:?}: {said:#?}"
            );
            if mode == SslMode::Require {
                ensure!(
                    said[0].contains("requires encryption by TLS"),
                    "{}",
                    said[0]
                );
            }
        }
        Ok(())
    });
}

/// A connection by TLS; `protocol` is what the client names by ALPN. What is to come before it has been said.
pub(crate) async fn secured(
    tcp: TcpStream,
    authority: &Authority,
    protocol: Option<&str>,
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocol
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let name = ServerName::try_from("127.0.0.1")?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Ok(connector.connect(name, tcp).await?)
}

/// The first answer by TLS that begins at once.
async fn directly(
    proxy: &Running,
    authority: &Authority,
    protocol: Option<&str>,
) -> Result<Vec<u8>> {
    let tcp = TcpStream::connect(proxy.address).await?;
    let mut tls = secured(tcp, authority, protocol).await?;
    let body = b"\0\x03\0\0user\0app\0database\0app\0\0";
    tls.write_u32(u32::try_from(body.len() + 4)?).await?;
    tls.write_all(body).await?;
    // What the socket does not take at once waits for this, and the runtime lets nobody write for long at a time.
    tls.flush().await?;
    let mut room = vec![0; 64];
    let count = tls.read(&mut room).await?;
    room.truncate(count);
    Ok(room)
}

#[test]
fn tls_may_begin_at_once_by_its_name_and_nothing_slips_in_before_it() {
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        let tls = ClientTls::load(&authority.files(SslMode::Prefer, "proxy"))?;
        let proxy = server
            .proxy_with(|options| options.client_tls = tls)
            .await?;
        // It is asked for a proof, and channel binding is among what is offered.
        let said = directly(&proxy, &authority, Some("postgresql")).await?;
        let offered = String::from_utf8_lossy(&said).into_owned();
        ensure!(
            offered.contains("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
            "{offered:?}"
        );
        for wrong in [Some("http/1.1"), None] {
            let said = directly(&proxy, &authority, wrong).await;
            ensure!(
                said.as_ref().map_or(true, Vec::is_empty),
                "{wrong:?}: {said:?}"
            );
        }
        // What is glued to the request would be taken for encrypted (CVE-2021-23222).
        let mut tcp = TcpStream::connect(proxy.address).await?;
        let glued = b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x10\0\x03\0\0user\0a\0\0";
        tcp.write_all(glued).await?;
        let mut said = Vec::new();
        tcp.read_to_end(&mut said).await?;
        ensure!(said.first() == Some(&b'E'), "{said:?}");
        // Encryption by GSSAPI is declined, and TLS can be asked for after it.
        let mut tcp = TcpStream::connect(proxy.address).await?;
        tcp.write_all(b"\0\0\0\x08\x04\xd2\x16\x30").await?;
        ensure!(tcp.read_u8().await? == b'N');
        tcp.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await?;
        ensure!(tcp.read_u8().await? == b'S');
        Ok(())
    });
}

#[test]
fn a_hundred_begin_tls_at_once_and_at_the_same_time() {
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        let tls = ClientTls::load(&authority.files(SslMode::Require, "proxy"))?;
        let proxy = server
            .proxy_with(|options| {
                options.client_tls = tls;
                options.limits.login_time = SOON;
            })
            .await?;
        let logins = (0..100).map(|_| directly(&proxy, &authority, Some("postgresql")));
        let said = timeout(SOON, futures_util::future::try_join_all(logins)).await??;
        for answer in said {
            ensure!(answer.first() == Some(&b'R'), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn encryption_is_asked_for_once_and_begun_in_time() {
    const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        let tls = ClientTls::load(&authority.files(SslMode::Prefer, "proxy"))?;
        let proxy = server
            .proxy_with(|options| {
                options.client_tls = tls;
                options.limits.login_time = Duration::from_secs(2);
            })
            .await?;
        let agreed = async || {
            let mut tcp = TcpStream::connect(proxy.address).await?;
            tcp.write_all(SSL_REQUEST).await?;
            ensure!(tcp.read_u8().await? == b'S');
            Ok(tcp)
        };
        let client_hello = b"\x16\x03\x01\0\x05\x01\0\0\x01\0";
        for again in [SSL_REQUEST, GSS_REQUEST, client_hello] {
            let mut tls = secured(agreed().await?, &authority, None).await?;
            tls.write_all(again).await?;
            tls.flush().await?;
            let mut said = Vec::new();
            // That the other side ends without a farewell of TLS's is no matter here.
            let _ = timeout(SOON, tls.read_to_end(&mut said)).await?;
            let said = String::from_utf8_lossy(&said);
            ensure!(said.contains("C08P01"), "{again:?}: {said}");
        }
        // Agreed on, and not begun; begun, and not gone on with; answered in clear.
        for said in [&b""[..], &client_hello[..7], b"Q\0\0\0\x04"] {
            let mut tcp = agreed().await?;
            tcp.write_all(said).await?;
            let mut heard = Vec::new();
            let _ = timeout(SOON, tcp.read_to_end(&mut heard)).await?;
            // An alert of TLS's is all that there may be.
            ensure!(matches!(heard.first(), None | Some(0x15)), "{heard:?}");
        }
        // Others are let in as before.
        let said = directly(&proxy, &authority, Some("postgresql")).await?;
        ensure!(said.first() == Some(&b'R'), "{said:?}");
        Ok(())
    });
}

#[test]
fn the_server_is_spoken_to_as_the_mode_says_and_keys_pass_through() {
    story(async |server| {
        let (ours, theirs) = (
            Authority::new(server, "ours")?,
            Authority::new(server, "theirs")?,
        );
        with_tls(server, &ours)?;
        ours.sign(server, "app", "nowhere")?;
        let verifier = server.psql("select rolpassword from pg_authid where rolname = 'app'")?;
        // The proxy knows no password: what the client shows must do for the server.
        let ask = async |files: TlsFiles| {
            let tls = ServerTls::load(&files)?;
            let users = Users::parse(&format!("\"app\" \"{verifier}\""))?;
            let with = |options: &mut proxy::Options| {
                options.server_tls = tls;
                options.users = users;
                options.limits.hold_time = Duration::from_secs(1);
            };
            let proxy = server.proxy_with(with).await?;
            server.psql_by(&conninfo(&proxy, "sslmode=disable"), WHO)
        };
        let mode = |mode| TlsFiles {
            mode,
            ..TlsFiles::default()
        };
        ensure!(ask(mode(SslMode::Disable)).await? == "app|f");
        ensure!(ask(mode(SslMode::Allow)).await? == "app|f");
        ensure!(ask(mode(SslMode::Prefer)).await? == "app|t");
        ensure!(ask(mode(SslMode::Require)).await? == "app|t");
        ensure!(ask(ours.files(SslMode::VerifyFull, "app")).await? == "app|t");
        let said = ask(TlsFiles {
            authority: Some(theirs.path("ca.crt")),
            ..mode(SslMode::VerifyCa)
        });
        let said = said.await?;
        ensure!(
            said.contains("can't log in") && said.contains("UnknownIssuer"),
            "{said}"
        );
        // A name that the certificate does not have: only the strictest looks at it.
        let elsewhere = Authority::new(server, "elsewhere")?;
        with_tls(server, &elsewhere)?;
        elsewhere.sign(server, "server", "10.1.2.3")?;
        server.psql("select pg_reload_conf()")?;
        let authority = |mode| TlsFiles {
            mode,
            authority: Some(elsewhere.path("ca.crt")),
            ..TlsFiles::default()
        };
        lab::eventually("the new certificate", Duration::from_secs(10), async || {
            let said = ask(authority(SslMode::VerifyFull)).await?;
            ensure!(said.contains("can't log in"), "{said}");
            Ok(())
        })
        .await?;
        ensure!(ask(authority(SslMode::VerifyCa)).await? == "app|t");
        // By rule only with TLS: `allow` comes again.
        rules(server, "hostssl all all 127.0.0.1/32 scram-sha-256")?;
        ensure!(ask(mode(SslMode::Allow)).await? == "app|t");
        // A server without TLS.
        server.psql("alter system set ssl = off")?;
        rules(server, "host all all 127.0.0.1/32 scram-sha-256")?;
        ensure!(ask(mode(SslMode::Prefer)).await? == "app|f");
        let said = ask(mode(SslMode::Require)).await?;
        ensure!(said.contains("the server has no TLS"), "{said}");
        Ok(())
    });
}

#[test]
fn certificates_and_rules_decide_who_gets_in() {
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        authority.sign(server, "app", "nowhere")?;
        authority.sign(server, "other", "nowhere")?;
        let tls = ClientTls::load(&authority.files(SslMode::Prefer, "proxy"))?;
        let own = |name: &str| {
            let at = |kind: &str| {
                authority
                    .path(&format!("{name}.{kind}"))
                    .display()
                    .to_string()
            };
            format!("sslmode=require sslcert={} sslkey={}", at("crt"), at("key"))
        };
        let cert = server.proxy_with(|options| {
            options.client_tls = tls.clone();
            options.auth = AuthMethod::Cert;
        });
        let cert = cert.await?;
        let ask = |proxy: &Running, more: &str| server.psql_by(&conninfo(proxy, more), "select 7");
        ensure!(ask(&cert, &own("app"))? == "7");
        for who in [
            own("other"),
            "sslmode=require".to_owned(),
            "sslmode=disable".to_owned(),
        ] {
            let said = ask(&cert, &who)?;
            ensure!(
                said.contains("certificate authentication failed for user \"app\""),
                "{said}"
            );
        }
        let hba = Hba::parse(
            "host all other all reject\nhostssl app app 127.0.0.0/8 cert\n\
             hostnossl app all 127.0.0.1 255.255.255.255 scram-sha-256",
        )?;
        let ruled = server.proxy_with(|options| {
            options.client_tls = tls;
            options.hba = Some(hba);
        });
        let ruled = ruled.await?;
        ensure!(ask(&ruled, &own("app"))? == "7");
        ensure!(ask(&ruled, "sslmode=disable")? == "7");
        let said = ask(&ruled, "sslmode=disable dbname=other")?;
        ensure!(
            said.contains("no pg_hba.conf entry for host \"127.0.0.1\""),
            "{said}"
        );
        let said = ask(&ruled, "sslmode=disable user=other")?;
        ensure!(said.contains("pg_hba.conf rejects connection"), "{said}");
        Ok(())
    });
}

#[test]
fn files_that_cannot_work_are_refused_when_they_are_read() {
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        let good = authority.files(SslMode::VerifyFull, "proxy");
        let without = |what: &str| {
            let mut files = good.clone();
            match what {
                "certificate" => files.certificate = None,
                "authority" => files.authority = None,
                _ => files.key = Some(Path::new("/nowhere").to_owned()),
            }
            files
        };
        for (what, why) in [
            ("certificate", "belong together"),
            ("authority", "without an authority"),
            ("key", "cannot read /nowhere"),
        ] {
            for error in [
                ClientTls::load(&without(what))
                    .err()
                    .map(|error| error.to_string()),
                ServerTls::load(&without(what))
                    .err()
                    .map(|error| error.to_string()),
            ] {
                let error = error.with_context(|| what.to_owned())?;
                ensure!(error.contains(why), "{error}");
            }
        }
        Ok(())
    });
}
