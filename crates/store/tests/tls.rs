//! TLS between members and from clients: who is let in, who is not, what both are told, and that nobody else waits.

mod common;

use common::certificates::{Authority, Files, Pair, replace};
use common::log::Log;
use common::{CLUSTER, Cluster, PATIENCE, eventually, secret, tls};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use store::{
    RaftStore, RemoteOptions, RemoteStore, Start, Store, StoreError, Tls, TlsOptions, Txn,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, rustls};

/// A client that a busy machine does not cut short.
fn remote(address: &str, tls: Option<Tls>) -> RemoteStore {
    RemoteStore::new(RemoteOptions {
        tls,
        request_timeout: PATIENCE,
        ..RemoteOptions::new(vec![address.to_owned()], CLUSTER, secret())
    })
}

/// What is said to a client; one that waits in vain hears something else.
async fn complaint(client: &RemoteStore) -> String {
    let error = client.read("/").await.expect_err("refused");
    assert!(matches!(error, StoreError::Denied(_)), "{error}");
    error.to_string()
}

/// Files of somebody signed by `authority`, who believes in `believed`.
fn stranger(cluster: &Cluster, name: &str, pair: &Pair, believed: &Authority) -> Files {
    Files::write(cluster.home.path(), name, pair, &believed.pem)
}

fn only_dialling(files: &Files) -> Tls {
    Tls::load(TlsOptions {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        authority: files.authority.clone(),
        host: None,
        required: true,
    })
    .expect("good certificates")
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.expect("PEM")
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM")
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(&authority.pem));
    roots
}

/// A client that is not ours and so shows what ours would refuse to: `pair`, or nothing.
async fn connect(
    address: &str,
    authority: &Authority,
    pair: Option<&Pair>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(authority));
    let config = match pair {
        Some(pair) => config
            .with_client_auth_cert(chain(&pair.certificate), key(pair))
            .expect("a pair"),
        None => config.with_no_client_auth(),
    };
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&RaftStore::PREFACE).await?;
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// What a member says to a foreign client after its certificate.
async fn alert(address: &str, authority: &Authority, pair: Option<&Pair>) -> String {
    let answered = async {
        match connect(address, authority, pair).await {
            // TLS 1.3: the client is done before the server has looked at its certificate.
            Ok(mut stream) => stream.read_u8().await.expect_err("no word").to_string(),
            Err(error) => error.to_string(),
        }
    };
    timeout(PATIENCE, answered).await.expect("an answer")
}

/// A server that is not ours and so shows what ours would refuse to.
async fn pretend(authority: &Authority, pair: &Pair) -> String {
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(
            rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots(authority)),
                ring::default_provider().into(),
            )
            .build()
            .expect("an authority"),
        )
        .with_single_cert(chain(&pair.certificate), key(pair))
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut magic = [0; 4];
            if stream.read_exact(&mut magic).await.is_ok() {
                drop(acceptor.accept(stream).await);
            }
        }
    });
    address
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_refused() {
    let (log, _guard) = Log::begin();
    let mut cluster = Cluster::planned(&["a"]);
    cluster.authority = Some(Authority::named("twin"));
    cluster.begin().await;
    let address = &cluster.places[0].address;
    let ours = cluster.authority.as_ref().expect("TLS");
    let theirs = Authority::new();
    // Believes in our authority, but is not of it.
    let said = alert(address, ours, Some(&theirs.sign(&["127.0.0.1"]))).await;
    assert!(said.contains("UnknownCA"), "{said}");
    log.says("WARN", "not of this cluster's authority").await;
    let twin = Authority::named("twin");
    let said = alert(address, ours, Some(&twin.sign(&["127.0.0.1"]))).await;
    assert!(said.contains("DecryptError"), "{said}");
    let said = alert(address, ours, Some(&ours.sign_expired(&["127.0.0.1"]))).await;
    assert!(said.contains("CertificateExpired"), "{said}");
    let said = alert(address, ours, None).await;
    assert!(said.contains("CertificateRequired"), "{said}");

    // Does not believe in our authority, and says so to a person.
    let files = stranger(&cluster, "x", &theirs.sign(&["127.0.0.1"]), &theirs);
    let said = complaint(&remote(address, Some(only_dialling(&files)))).await;
    assert!(said.contains("not of this cluster's authority"), "{said}");
    log.says("WARN", "a peer and this node deny each other")
        .await;
    // The real ones are let in all the while.
    cluster.remote().read("/").await.expect("let in");
}

#[tokio::test]
async fn the_member_is_told_why_the_other_side_leaves() {
    let (log, _guard) = Log::begin();
    let cluster = Cluster::with_tls(&["a"]).await;
    let theirs = Authority::new();
    let files = stranger(&cluster, "x", &theirs.sign(&["127.0.0.1"]), &theirs);
    let client = remote(&cluster.places[0].address, Some(only_dialling(&files)));
    complaint(&client).await;
    log.says(
        "WARN",
        "the other side does not accept this node's certificate: it knows another authority",
    )
    .await;
}

#[tokio::test]
async fn a_client_is_told_why_a_member_does_not_take_it() {
    let cluster = Cluster::with_tls(&["a"]).await;
    let ours = cluster.authority.as_ref().expect("TLS");
    let theirs = Authority::new();
    // Of another authority, and believing in both: only the member has something against it.
    let believed = format!("{}{}", theirs.pem, ours.pem);
    let files = Files::write(
        cluster.home.path(),
        "x",
        &theirs.sign(&["127.0.0.1"]),
        &believed,
    );
    let said = complaint(&remote(
        &cluster.places[0].address,
        Some(only_dialling(&files)),
    ))
    .await;
    assert!(
        said.contains("does not accept this node's certificate: it knows another authority"),
        "{said}"
    );
}

#[tokio::test]
async fn a_member_is_not_believed_with_an_expired_or_anothers_certificate() {
    let cluster = Cluster::with_tls(&["a"]).await;
    let ours = cluster.authority.as_ref().expect("TLS");
    let client = |address: &str| remote(address, cluster.tls("client"));
    let expired = pretend(ours, &ours.sign_expired(&["127.0.0.1"])).await;
    let said = complaint(&client(&expired)).await;
    assert!(said.contains("expired at 2001-02-03T00:00:00Z"), "{said}");
    let another = pretend(ours, &ours.sign(&["10.0.0.9", "elsewhere.example"])).await;
    let said = complaint(&client(&another)).await;
    assert!(said.contains("does not name the host"), "{said}");
    assert!(said.contains("elsewhere.example"), "{said}");
}

#[tokio::test]
async fn the_secret_is_asked_for_inside_tls() {
    let cluster = Cluster::with_tls(&["a"]).await;
    let other = store::Secret::new(b"the secret of another cluster").expect("long enough");
    let addresses = vec![cluster.places[0].address.clone()];
    let options = RemoteOptions {
        tls: cluster.tls("client"),
        request_timeout: PATIENCE,
        ..RemoteOptions::new(addresses, CLUSTER, other)
    };
    let said = complaint(&RemoteStore::new(options)).await;
    assert!(said.contains("another cluster secret"), "{said}");
}

#[tokio::test]
async fn a_plain_peer_and_one_with_tls_tell_each_other() {
    let (log, _guard) = Log::begin();
    let with = Cluster::with_tls(&["a"]).await;
    let said = complaint(&remote(&with.places[0].address, None)).await;
    assert!(said.contains("takes nothing but TLS"), "{said}");
    log.says("WARN", "a peer was denied").await;
    log.says("WARN", "has no TLS, and this node takes nothing else")
        .await;

    let without = Cluster::of(&["b"]).await;
    let said = complaint(&remote(&without.places[0].address, with.tls("client"))).await;
    assert!(
        said.contains("has no TLS, and this node takes nothing else"),
        "{said}"
    );
    log.says("WARN", "takes nothing but TLS, and this node has none")
        .await;
}

#[tokio::test]
async fn a_member_without_tls_does_not_get_into_a_cluster_with_it() {
    let cluster = Cluster::with_tls(&["a"]).await;
    let plain = Cluster::planned(&["b"]);
    let known = Start::Join(vec![cluster.places[0].address.clone()]);
    let store = RaftStore::start(plain.options(0, known))
        .await
        .expect("started");
    store
        .ready(Duration::from_millis(700))
        .await
        .expect_err("not let in");
    assert_eq!(cluster.member(0).members().await.expect("members").len(), 1);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_given_tls_member_by_member() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.authority = Some(Authority::new());
    let writer = cluster.remote_plain();
    let mut round = 0;
    for required in [false, true] {
        for at in 0..3 {
            cluster.stop(at).await;
            let mut options = cluster.options(at, Start::Join(vec![]));
            let files = cluster.files(cluster.places[at].name.as_str());
            options.tls = Some(tls(&files.expect("an authority"), required));
            cluster.start_with(at, options).await;
            // All three, and not only a majority, understand each other before the next one goes.
            cluster.member(at).ready(PATIENCE).await.expect("ready");
            cluster.leader().await;
            round += 1;
            let txn = Txn::new().put("/round", round.to_string());
            cluster.member(at).commit(txn).await.expect("committed");
            if !required {
                writer.read("/round").await.expect("let in without TLS");
            }
        }
    }
    let said = complaint(&cluster.remote_plain()).await;
    assert!(said.contains("takes nothing but TLS"), "{said}");
    let seen = cluster.remote().read("/round").await.expect("let in");
    assert_eq!(seen.value("/round"), Some("6"));
}

/// The certificate that a member shows at the moment.
async fn shown(
    address: &str,
    authority: &Authority,
    pair: &Pair,
) -> Option<CertificateDer<'static>> {
    let stream = connect(address, authority, Some(pair)).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates()?.first()?;
    Some(shown.clone().into_owned())
}

#[tokio::test]
async fn changed_certificates_are_used_without_a_restart() {
    let (log, _guard) = Log::begin();
    let cluster = Cluster::with_tls(&["a"]).await;
    let old = cluster.authority.as_ref().expect("TLS");
    let address = &cluster.places[0].address;
    let client = cluster.remote();
    client.read("/").await.expect("let in");

    // First something unusable: nothing changes, and it is said.
    let files = cluster.files("a").expect("TLS");
    replace(&files.certificate, "torn");
    log.says("WARN", "the changed certificates cannot be used")
        .await;
    remote(address, cluster.tls("client"))
        .read("/")
        .await
        .expect("the old ones are in force");

    // Then another authority, with the old one still believed.
    let new = Authority::new();
    let pair = new.sign(&["127.0.0.1"]);
    replace(&files.authority, &format!("{}{}", old.pem, new.pem));
    files.replace(&pair);
    let expected = chain(&pair.certificate).remove(0);
    let visitor = old.sign(&[]);
    eventually("the new certificate is shown", || async {
        shown(address, &new, &visitor).await.as_ref() == Some(&expected)
    })
    .await;
    log.says("INFO", "the certificates were read again").await;
    client
        .read("/")
        .await
        .expect("connections that are open go on");
    let files = stranger(&cluster, "y", &new.sign(&["127.0.0.1"]), &new);
    remote(address, Some(only_dialling(&files)))
        .read("/")
        .await
        .expect("the new authority's are let in");
}

/// Members that are told to read their certificates again, as on SIGHUP.
#[tokio::test]
async fn certificates_are_read_again_when_asked() {
    let cluster = Cluster::with_tls(&["a"]).await;
    let ours = cluster.authority.as_ref().expect("TLS");
    let files = cluster.files("b").expect("TLS");
    let tls = tls(&files, true);
    let mut planned = Cluster::planned(&["b"]);
    let known = Start::Join(vec![cluster.places[0].address.clone()]);
    let mut options = planned.options(0, known);
    options.tls = Some(tls.clone());
    planned.start_with(0, options).await;
    let pair = ours.sign(&["127.0.0.1"]);
    files.replace(&pair);
    tls.reload().expect("good");
    let shown = shown(&planned.places[0].address, ours, &pair).await;
    assert_eq!(shown, Some(chain(&pair.certificate).remove(0)));
    replace(&files.key, &ours.sign(&[]).key);
    let error = tls.reload().expect_err("another key");
    assert!(error.to_string().contains("does not belong"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_dawdle_or_talk_nonsense_hold_up_nobody() {
    let cluster = Cluster::with_tls(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let address = cluster.places[leader].address.clone();
    let hello: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1];
    let mut crowd = Vec::new();
    for at in 0..300 {
        let mut stream = TcpStream::connect(&address).await.expect("connected");
        let words: &[u8] = match at % 4 {
            0 => b"",
            1 => b"SFS1",
            2 => &[b"SFS1", hello].concat(),
            _ => &[b"SFS1", [22; 600].as_slice()].concat(),
        };
        stream.write_all(words).await.expect("sent");
        crowd.push(stream);
        if at % 50 == 0 {
            // A new connection each time, past whoever is there already.
            let client = RemoteStore::new(RemoteOptions {
                tls: cluster.tls("client"),
                // Less than the strangers are given, so that it cannot have waited for them to go.
                request_timeout: Duration::from_secs(2),
                ..RemoteOptions::new(vec![address.clone()], CLUSTER, secret())
            });
            let txn = Txn::new().put("/crowd", at.to_string());
            client.commit(txn).await.expect("let in");
        }
    }
    let open = Instant::now();
    for mut stream in crowd {
        let mut rest = Vec::new();
        // Closed, politely or not, and soon.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("closed");
    }
    let took = open.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(cluster.leader().await, leader, "nobody was taken for dead");
}
