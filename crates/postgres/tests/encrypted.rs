//! Streams and copies by TLS, with a client's certificate whose key has a passphrase.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use postgres::{Libpq, Login, Options};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::{LONG, Node, PASSWORD, run, wait};

/// A key of P-256, and the same behind the passphrase `hush 1`.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLjVNz7FO4X4Kn+Da
+0AJL6GBHpzmtZrP8pAGw9xkvjGhRANCAARaABK5zBD0KNA34D2I9vKfBO9M+YVt
QmYAxNiBwFfeZsMtkKQSimkpCwzgX4506sME6yOCRN9ESVz+XThvRds/
-----END PRIVATE KEY-----
";
const LOCKED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhc+X4fVefbSAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEEq7eMZ2rx2lVoCvkKVFhfgEgZAP
ultdPJbg4kH0Koja81jJOwUjEqO0vZxQgRMWVgQMNxbAtj0c8hkW4zzpeb02coUt
kW+xOjizg80NwmBgjSLP8dPs0MMVCB02CgqIdobg6eia+tlR547AmSA4Is5vs+VB
NRyMPhk5dZxWkXySV/T2BKfKZdI0Yva/23LTLYalYfzPrp8EIVIgX92GOGjOehA=
-----END ENCRYPTED PRIVATE KEY-----
";

fn place(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// OpenSSL takes one that is called like its authority for one that has signed itself.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn encrypted(name: &str, authority: &Issuer<'_, KeyPair>, ca: &str) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let mut options: Options = Node::options(name, &dir);
    let (at, key) = (dir.path(), KeyPair::generate().unwrap());
    let params = named("localhost");
    let server = params.signed_by(&key, authority).unwrap();
    let client = KeyPair::from_pem(KEY).unwrap();
    let client = named("client").signed_by(&client, authority);
    let ca = place(at, "ca.crt", ca);
    let parameters = [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", place(at, "server.crt", &server.pem())),
        (
            "ssl_key_file",
            place(at, "server.key", &key.serialize_pem()),
        ),
        ("ssl_ca_file", ca.clone()),
    ];
    for (name, value) in parameters {
        options.parameters.insert(name.to_owned(), value);
    }
    let told = [
        ("sslmode", "verify-ca".to_owned()),
        ("sslrootcert", ca),
        ("sslcert", place(at, "client.crt", &client.unwrap().pem())),
        ("sslkey", place(at, "client.key", LOCKED)),
        ("sslpassword", "hush 1".to_owned()),
    ];
    let told = told.map(|(key, value)| (key.to_owned(), value));
    options.pgpass = Some(at.join("pgpass"));
    options.conninfo.0 = told.clone().into();
    options.rewind_conninfo.0 = told.into();
    Node::with_options(options, dir)
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = named("authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    (ca, Issuer::new(params, key))
}

/// Patroni: Configuration | `authentication`: `sslmode`, `sslcert`, `sslkey`, `sslrootcert`, `sslpassword` and the like | work
///   for streams, base backups, rewinds, and by the rewind role's for what the agent itself asks of another node
/// Patroni: Configuration | `pgpass` | works for the user's own programs: all our logins stand in it; ours have pass
///   files of their own
#[test]
fn streams_and_copies_are_encrypted_as_they_are_told_to_be() {
    run(
        "streams_and_copies_are_encrypted_as_they_are_told_to_be",
        async {
            let (ca, authority) = authority();
            let primary = Node::started(encrypted("a", &authority, &ca)).await;
            let standby = encrypted("b", &authority, &ca);
            assert!(!format!("{:?}", standby.options).contains("hush"));
            standby.clone_of(&primary).await;
            let path = standby.options.pgpass.clone().unwrap();
            let written = fs::read_to_string(&path).unwrap();
            assert!(written.starts_with("*:*:*:postgres:"), "{written}");
            assert!(written.contains("\n*:*:*:rewind user:"), "{written}");
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            standby.start_following(&primary).await;
            let sql = "SELECT ssl || ' ' || (client_dn IS NOT NULL) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
            wait("an encrypted stream", async || {
                (primary.sql(sql).await == ["true true"]).then_some(())
            })
            .await;
        },
    );
}

/// What an agent asks another server before it follows, rewinds or copies.
/// Patroni: Configuration | `authentication`: `sslmode`, `sslcert`, `sslkey`, `sslrootcert`, `sslpassword` and the like
#[test]
fn another_server_is_asked_as_pg_rewind_would_ask_it() {
    run("another_server_is_asked_as_pg_rewind_would_ask_it", async {
        let (ca, signer) = authority();
        let mut server = encrypted("a", &signer, &ca);
        server.options.pg_hba = [
            "hostssl all guest 127.0.0.1/32 scram-sha-256",
            "hostssl all member 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
            "hostnossl all plain 127.0.0.1/32 scram-sha-256",
        ]
        .map(str::to_owned)
        .to_vec();
        let server = Node::started(server.again()).await;
        for role in ["guest", "member", "plain"] {
            let password = PASSWORD.replace('\'', "''");
            let sql = format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'");
            server.sql(&sql).await;
        }
        let strangers = tempfile::tempdir().unwrap();
        let stranger = place(strangers.path(), "ca.crt", &authority().0);
        let own = server.options.rewind_conninfo.0.clone();
        let known = own["sslrootcert"].as_str();
        let asks = async |role: &str, host: &str, said: &[(&str, &str)]| {
            let mut asker = Node::new("b");
            asker.options.superuser = Login::new("postgres", "");
            asker.options.rewind = Login::new(role, PASSWORD);
            let said = said.iter();
            let said = said.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            asker.options.rewind_conninfo = Libpq(said.collect());
            let mut upstream = server.upstream();
            upstream.host = host.to_owned();
            let asker = asker.again();
            let told = asker.instance.upstream_info(&upstream, LONG).await;
            told.map(|info| info.version > 0).map_err(|error| {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    text = format!("{text}: {inner}");
                    cause = inner.source();
                }
                text
            })
        };
        let client = ["sslcert", "sslkey", "sslpassword"].map(|key| (key, own[key].as_str()));
        let full = [("sslmode", "verify-full"), ("sslrootcert", known)];
        for (role, host, said) in [
            ("guest", "127.0.0.1", &[][..]),
            ("guest", "127.0.0.1", &[("sslmode", "allow")]),
            ("guest", "127.0.0.1", &[("sslmode", "require")]),
            ("guest", "localhost", &full),
            (
                "guest",
                "127.0.0.1",
                &[("sslmode", "verify-ca"), ("sslrootcert", known)],
            ),
            (
                "member",
                "localhost",
                &[full[0], full[1], client[0], client[1], client[2]],
            ),
            ("plain", "127.0.0.1", &[]),
            (
                "plain",
                "127.0.0.1",
                &[("sslcert", "/nowhere"), ("sslkey", "/nowhere")],
            ),
            ("plain", "127.0.0.1", &[("sslmode", "disable")]),
        ] {
            let told = asks(role, host, said).await;
            assert_eq!(told, Ok(true), "{role} {host} {said:?}");
        }
        for (role, host, said, why) in [
            (
                "guest",
                "127.0.0.1",
                &[("sslmode", "disable")][..],
                "no pg_hba.conf entry",
            ),
            ("guest", "127.0.0.1", &full, "not valid for name"),
            ("member", "localhost", &full, "certificate"),
            (
                "plain",
                "127.0.0.1",
                &[("sslmode", "require")],
                "no pg_hba.conf entry",
            ),
            (
                "guest",
                "localhost",
                &[("sslmode", "verify-ca"), ("sslrootcert", stranger.as_str())],
                "BadSignature",
            ),
            (
                "guest",
                "localhost",
                &[("sslmode", "verify-ca"), ("sslrootcert", "/nowhere/ca.crt")],
                "/nowhere/ca.crt",
            ),
        ] {
            let told = asks(role, host, said).await;
            let error = told.expect_err("refused");
            assert!(error.contains(why), "{role} {host} {said:?}: {error}");
        }
    });
}
