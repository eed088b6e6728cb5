//! HTTPS, plain HTTP beside it where that is wanted, whom a client believes, certificates of clients, and from where something may be changed.

use crate::world::{Server, World, until};
use api::client::{Client, Question, Silence, Trust, TrustOptions};
use api::{Certificate, CertificateOptions, Gate, VerifyClient};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const BASIC: &str = "Basic YWRtaW46c2VjcmV0";

/// An authority, a certificate of the server and one of a client, as files.
fn certificates(dir: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([]).expect("plain");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    place(
        dir,
        "ca.crt",
        &params.self_signed(&key).expect("signed").pem(),
    );
    let authority = Issuer::new(params, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("plain");
        let signed = params.signed_by(&key, &authority).expect("signed");
        place(dir, &format!("{name}.crt"), &signed.pem());
        place(dir, &format!("{name}.key"), &key.serialize_pem());
    }
}

fn place(dir: &Path, name: &str, text: &str) {
    let (new, path) = (dir.join("new"), dir.join(name));
    fs::write(&new, text).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("set");
    fs::rename(new, path).expect("renamed");
}

fn options(dir: &Path, verify: VerifyClient) -> CertificateOptions {
    CertificateOptions {
        certificate: dir.join("server.crt"),
        key: dir.join("server.key"),
        passphrase: None,
        authority: Some(dir.join("ca.crt")),
        verify,
        plain_http: true,
    }
}

async fn server(world: &World, dir: &Path, verify: VerifyClient) -> (Server, Certificate) {
    let certificate = Certificate::load(options(dir, verify)).expect("usable files");
    let picture = world.picture("a").await;
    let server =
        Server::start_with(world, picture, Some(certificate.clone()), Gate::default()).await;
    (server, certificate)
}

/// One request over HTTPS, with a certificate of its own or without; `None`: turned away.
async fn request(server: &Server, dir: &Path, certified: bool, line: &str) -> Option<u16> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut roots = RootCertStore::empty();
    for authority in certs::pem::certificates(&dir.join("ca.crt")).expect("an authority") {
        roots.add(authority).expect("a certificate");
    }
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = if certified {
        let chain = certs::pem::certificates(&dir.join("client.crt")).expect("a chain");
        let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).expect("a key");
        builder.with_client_auth_cert(chain, key).expect("a pair")
    } else {
        builder.with_no_client_auth()
    };
    let stream = TcpStream::connect(server.address).await.ok()?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.ok()?;
    let text = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split_whitespace().nth(1)?.parse().ok()
}

/// A key of P-256, and the same behind the passphrase `hush`, as OpenSSL writes it today and wrote it of old.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLjVNz7FO4X4Kn+Da
+0AJL6GBHpzmtZrP8pAGw9xkvjGhRANCAARaABK5zBD0KNA34D2I9vKfBO9M+YVt
QmYAxNiBwFfeZsMtkKQSimkpCwzgX4506sME6yOCRN9ESVz+XThvRds/
-----END PRIVATE KEY-----
";
const LOCKED: [&str; 2] = [
    "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg20FMTpmsaTgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEAhgvSnnDzYSYU9jUj8+YV0EgZA0
FnAtP70PDukwhtdf5iPYnOSXcugLBaUfF4L4TefL2RM45Zqa+/NwV4mUEr/ZddpD
BIfL0Z1Q3oZVgvLtQcXKfunbtQ9WDqNAjTkgaipz5Ia3e5oRbDkaeeIb1CACKQ8R
IIQ3rXEvrzAhzghqagUdwKlzffh0LCGtGhfa0SvBpfenlNzHOlw6z9XeUWdMcHg=
-----END ENCRYPTED PRIVATE KEY-----
",
    "-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,31518CEA3978F9BC71502DE866D8D75D

Q3s2PatBPBya49Kr42TX2qq7nLIYzr/WFzMPQ+c8ZJ9QcEDKKlzocXbVRhE8ccXE
cNyA6xb88KnJP7lQUWSk4pGYKLEVKEYtzg7Jr3R3JOY1H1/o5K3WlyURRatJdF0+
Px+loQXeS1HTY0ky06W0aIKxlNjZWbLnztzcrWGnb98=
-----END EC PRIVATE KEY-----
",
];

/// Patroni: REST | `keyfile_password`, `ctl.keyfile_password` | work, where the program `openssl` is there to open the key
#[tokio::test]
async fn a_key_may_have_a_passphrase() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let key = KeyPair::from_pem(KEY).expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("plain");
    let signed = params.self_signed(&key).expect("signed").pem();
    place(dir.path(), "server.crt", &signed);
    place(dir.path(), "ca.crt", &signed);
    for locked in LOCKED {
        place(dir.path(), "server.key", locked);
        let with = |passphrase: Option<&str>| {
            Certificate::load(CertificateOptions {
                passphrase: passphrase.map(certs::Passphrase::new),
                ..options(dir.path(), VerifyClient::None)
            })
        };
        let refused = |passphrase| with(passphrase).expect_err("it stays shut").to_string();
        assert!(refused(None).contains("it has a passphrase, and none is given"));
        assert!(refused(Some("loud")).contains("the passphrase is not its own"));
        let certificate = with(Some("hush")).expect("it opens");
        let picture = world.picture("a").await;
        let server = Server::start_with(&world, picture, Some(certificate), Gate::default()).await;
        let client = Client::new(Trust::new(TrustOptions {
            authority: Some(dir.path().join("ca.crt")),
            ..TrustOptions::default()
        }));
        let url = format!("https://localhost:{}/primary", server.address.port());
        let answer = client
            .ask(Question::get(&url, Duration::from_secs(5)))
            .await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
}

/// Patroni: REST | TLS 1.2 | works beside 1.3; members among themselves speak 1.3
#[tokio::test]
async fn who_knows_no_newer_tls_than_1_2_is_answered() {
    use tokio_rustls::rustls::{ProtocolVersion, version::TLS12};
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let (server, _) = server(&world, dir.path(), VerifyClient::None).await;
    let mut roots = RootCertStore::empty();
    for authority in certs::pem::certificates(&dir.path().join("ca.crt")).expect("an authority") {
        roots.add(authority).expect("a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.expect("a handshake");
    let version = stream.get_ref().1.protocol_version();
    assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
    stream
        .write_all(b"GET /primary HTTP/1.0\r\n\r\n")
        .await
        .expect("asked");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{answer:?}");
}

async fn plain(server: &Server, method: reqwest::Method, path: &str) -> u16 {
    let request = server.client.request(method, server.url(path));
    let answer = request.header("authorization", BASIC).send().await;
    answer.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn one_port_speaks_both() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let (server, _) = server(&world, dir.path(), VerifyClient::None).await;
    assert_eq!(
        request(&server, dir.path(), false, "GET /primary").await,
        Some(200)
    );
    assert_eq!(
        request(&server, dir.path(), false, "OPTIONS /replica").await,
        Some(503)
    );
    assert_eq!(
        request(&server, dir.path(), false, "POST /reload").await,
        Some(202)
    );
    assert_eq!(server.code("/primary").await, 200);
    // What is neither is closed, and what stops in the middle does not stay.
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream
        .write_all(&[22, 3, 1, 0, 5, 1, 2, 3, 4, 5])
        .await
        .expect("sent");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    read.await.expect("closed").ok();
    assert_eq!(server.code("/primary").await, 200);
}

/// Patroni: REST | `certfile`, `keyfile`, `cafile`, renewed without a restart | work; plain HTTP
///   beside it only with `plain_http`
#[tokio::test]
async fn a_port_with_a_certificate_refuses_plain_http() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let strict = CertificateOptions {
        plain_http: false,
        ..options(dir.path(), VerifyClient::None)
    };
    let server = served(&world, strict).await;
    assert_eq!(
        request(&server, dir.path(), false, "GET /primary").await,
        Some(200)
    );
    let answer = server.get("/primary").await;
    assert_eq!(answer.status(), 400);
    let text = answer.text().await.expect("a text");
    assert!(text.contains("HTTPS only"), "{text}");
    for path in ["/reload", "/api/v1/switchover"] {
        assert_eq!(plain(&server, reqwest::Method::POST, path).await, 400);
    }
}

/// A server with just these files.
async fn served(world: &World, options: CertificateOptions) -> Server {
    let certificate = Certificate::load(options).expect("usable files");
    let picture = world.picture("a").await;
    Server::start_with(world, picture, Some(certificate), Gate::default()).await
}

/// What a client of ours is answered, by the name `host`.
async fn asks(
    server: &Server,
    trust: TrustOptions,
    host: &str,
    path: &str,
) -> Result<u16, Silence> {
    let url = format!("https://{host}:{}{path}", server.address.port());
    let client = Client::new(Trust::new(trust));
    let question = Question::get(&url, Duration::from_secs(10));
    client.ask(question).await.map(|answer| answer.status)
}

#[tokio::test]
async fn a_client_believes_an_authority_and_nobody_else() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let server = served(&world, options(dir.path(), VerifyClient::Required)).await;
    let file = |name: &str| dir.path().join(name);
    let trust = TrustOptions {
        authority: Some(file("ca.crt")),
        own: Some((file("client.crt"), file("client.key"))),
        ..TrustOptions::default()
    };
    let unbelieved = |answer, words: &str| match answer {
        Err(Silence::Unbelieved(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    };
    let ask =
        async |trust: &TrustOptions, host| asks(&server, trust.clone(), host, "/primary").await;
    assert_eq!(ask(&trust, "localhost").await, Ok(200));
    unbelieved(ask(&trust, "127.0.0.1").await, "another name");
    let by_any_name = TrustOptions {
        any_name: true,
        ..trust.clone()
    };
    assert_eq!(ask(&by_any_name, "127.0.0.1").await, Ok(200));
    let nobody = TrustOptions {
        own: None,
        ..trust.clone()
    };
    assert!(
        ask(&nobody, "localhost").await.is_err(),
        "without a certificate of its own"
    );
    let system = TrustOptions {
        authority: None,
        ..trust.clone()
    };
    unbelieved(
        ask(&system, "localhost").await,
        "no authority that is believed",
    );
    let by_any_name = TrustOptions {
        any_name: true,
        ..system.clone()
    };
    assert!(ask(&by_any_name, "localhost").await.is_err());
    let insecure = TrustOptions {
        insecure: true,
        ..system
    };
    assert_eq!(ask(&insecure, "127.0.0.1").await, Ok(200));
    let nothing = TrustOptions {
        authority: Some(file("none.crt")),
        ..trust
    };
    unbelieved(ask(&nothing, "localhost").await, "none.crt");
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_its_own_authority() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    for name in ["server", "other"] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("plain");
        // As `openssl req -x509` makes them.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = params.self_signed(&key).expect("signed");
        place(dir.path(), &format!("{name}.crt"), &signed.pem());
        place(dir.path(), &format!("{name}.key"), &key.serialize_pem());
    }
    let files = CertificateOptions {
        authority: None,
        ..options(dir.path(), VerifyClient::None)
    };
    let server = served(&world, files).await;
    let by = |name: &str| TrustOptions {
        authority: Some(dir.path().join(name)),
        ..TrustOptions::default()
    };
    let ask = async |trust, host| asks(&server, trust, host, "/primary").await;
    assert_eq!(ask(by("server.crt"), "localhost").await, Ok(200));
    assert!(ask(by("server.crt"), "127.0.0.1").await.is_err());
    assert!(ask(by("other.crt"), "localhost").await.is_err());
    let own = TrustOptions {
        own: Some((dir.path().join("server.crt"), dir.path().join("server.key"))),
        ..TrustOptions::default()
    };
    assert_eq!(ask(own, "localhost").await, Ok(200));
}

#[tokio::test]
async fn a_client_takes_the_files_that_there_are_now() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let (server, certificate) = server(&world, dir.path(), VerifyClient::None).await;
    let client = Client::new(Trust::new(TrustOptions {
        authority: Some(dir.path().join("ca.crt")),
        ..TrustOptions::default()
    }));
    let url = format!("https://localhost:{}/primary", server.address.port());
    let ask = async || {
        client
            .ask(Question::get(&url, Duration::from_secs(10)))
            .await
    };
    assert!(ask().await.is_ok());
    certificates(dir.path());
    certificate.reload().expect("usable files");
    // The first is refused by what was read before.
    assert!(ask().await.is_err());
    assert_eq!(ask().await.map(|answer| answer.status), Ok(200));
}

#[tokio::test]
async fn the_end_of_the_certificate_is_a_metric() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("plain");
    params.not_after = rcgen::date_time_ymd(2041, 2, 3);
    let signed = params.self_signed(&key).expect("signed");
    place(dir.path(), "server.crt", &signed.pem());
    place(dir.path(), "server.key", &key.serialize_pem());
    let server = served(&world, options(dir.path(), VerifyClient::None)).await;
    let page = server.get("/metrics").await.text().await.expect("a page");
    let line = page
        .lines()
        .find(|line| line.starts_with("standfast_certificate_expires_seconds{"));
    let line = line.expect("the metric");
    assert!(line.contains("of=\"rest\""), "{line}");
    assert!(line.ends_with(" 2243462400"), "{line}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let (server, certificate) = server(&world, dir.path(), VerifyClient::None).await;
    assert_eq!(
        request(&server, dir.path(), false, "GET /primary").await,
        Some(200)
    );
    // Another authority: the client believes that one only, and the server is not told.
    certificates(dir.path());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while request(&server, dir.path(), false, "GET /primary").await != Some(200) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the new one was never taken"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    place(dir.path(), "server.crt", "no certificate");
    assert!(certificate.reload().is_err());
    assert_eq!(
        request(&server, dir.path(), false, "GET /primary").await,
        Some(200)
    );
}

/// Patroni: REST | `verify_client` | works; the cluster's token passes without a certificate
#[tokio::test]
async fn who_changes_something_shows_a_certificate_where_that_is_asked() {
    let (dir, world) = (TempDir::new().expect("a directory"), World::three().await);
    certificates(dir.path());
    let (server, _) = server(&world, dir.path(), VerifyClient::Optional).await;
    assert_eq!(
        request(&server, dir.path(), false, "GET /primary").await,
        Some(200)
    );
    assert_eq!(
        request(&server, dir.path(), false, "POST /reload").await,
        Some(403)
    );
    assert_eq!(
        request(&server, dir.path(), true, "POST /reload").await,
        Some(202)
    );
    assert_eq!(plain(&server, reqwest::Method::POST, "/reload").await, 403);
    // The cluster's own token proves more than a certificate.
    let (status, _) = server
        .order(reqwest::Method::POST, "/reload", serde_json::Value::Null)
        .await;
    assert_eq!(status, 202);

    let certificate = Certificate::load(options(dir.path(), VerifyClient::Required));
    let picture = world.picture("a").await;
    let gate = Gate::default();
    let certificate = Some(certificate.expect("usable files"));
    let server = Server::start_with(&world, picture, certificate, gate).await;
    assert_eq!(
        request(&server, dir.path(), false, "GET /primary").await,
        None
    );
    assert_eq!(
        request(&server, dir.path(), true, "GET /primary").await,
        Some(200)
    );
    assert_eq!(server.code("/primary").await, 200);
    let without = CertificateOptions {
        authority: None,
        ..options(dir.path(), VerifyClient::Required)
    };
    assert!(Certificate::load(without).is_err());
}

/// Patroni: REST | `allowlist`, `allowlist_include_members`, `http_extra_headers` | work; the cluster's token
///   passes
#[tokio::test]
async fn only_the_allowed_addresses_change_something() {
    let world = World::three().await;
    for (allowlist, names, allow_members, status) in [
        (vec!["10.0.0.0/8"], vec![], false, 403),
        (vec!["10.0.0.0/8", "127.0.0.0/8"], vec![], false, 202),
        // The members of this world are on 127.0.0.1.
        (vec!["10.0.0.0/8"], vec![], true, 202),
        (vec![], vec![], true, 202),
        (vec!["10.0.0.0/8"], vec!["localhost"], false, 202),
        (vec![], vec!["no-such-host.invalid"], false, 403),
    ] {
        let gate = Gate {
            allowed_names: names.iter().map(|name| (*name).to_owned()).collect(),
            allowlist: allowlist
                .iter()
                .map(|it| it.parse().expect("a network"))
                .collect(),
            allow_members,
            headers: vec![(
                "x-frame-options".parse().expect("a name"),
                "DENY".parse().expect("a value"),
            )],
        };
        let picture = world.picture("a").await;
        let server = Server::start_with(&world, picture, None, gate).await;
        let found = plain(&server, reqwest::Method::POST, "/reload").await;
        assert_eq!(found, status, "{allowlist:?} {names:?} {allow_members}");
        let read = server.get("/primary").await;
        assert_eq!(read.status(), 200);
        assert_eq!(read.headers()["x-frame-options"], "DENY");
        until("the picture is shown", async || {
            server.code("/patroni").await == 200
        })
        .await;
    }
}
