//! What befalls an etcd cluster, as those who use it see it: real members that are killed, frozen and restarted.

mod common;

use common::etcd::Etcd;
use common::{PATIENCE, eventually};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{EtcdLogin, EtcdStore, EtcdTls, Guard, Outcome, Store, StoreError, Txn};
use tokio::time::{Instant, timeout};

/// The request timeout, and time for a busy machine to notice.
const LIMIT: Duration = Duration::from_millis(1500);
const TTL: Duration = Duration::from_secs(2);

async fn has(store: &EtcdStore, key: &str) -> bool {
    let read = store.read(key).await;
    read.is_ok_and(|seen| seen.value(key).is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_member_that_is_asked_dies_and_the_next_one_answers() {
    let etcd = Etcd::of(3).await;
    for at in 0..3 {
        let store = etcd.store_from(at);
        store.read("/").await.expect("it answers");
        etcd.kill(at);
        // If it led, the others elect first.
        eventually("the others lead", async || {
            etcd.store().read("/").await.is_ok()
        })
        .await;
        let before = Instant::now();
        let put = store.commit(Txn::new().put("/a", at.to_string())).await;
        assert!(put.expect("another member").is_committed());
        assert!(before.elapsed() < LIMIT, "{:?}", before.elapsed());
        etcd.run(at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_member_that_is_asked_freezes_and_the_next_one_answers() {
    let etcd = Etcd::of(3).await;
    let frozen = (etcd.leader().await + 1) % 3;
    let store = etcd.store_from(frozen);
    let lease = store.grant(TTL).await.expect("granted");
    etcd.freeze(frozen);
    // What may be asked twice is asked elsewhere within its limit.
    let before = Instant::now();
    store.renew(lease).await.expect("another member renews");
    assert!(before.elapsed() < LIMIT, "{:?}", before.elapsed());
    // A transaction that was sent is not sent again; the next one goes elsewhere.
    let store = etcd.store_from(frozen);
    let first = store.commit(Txn::new().put("/a", "1")).await;
    assert!(
        matches!(first, Err(ref error) if error.is_retryable()),
        "{first:?}"
    );
    let second = store.commit(Txn::new().put("/a", "2")).await;
    assert!(second.expect("another member").is_committed());
    etcd.thaw(frozen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_is_not_led_to_the_same_member_again() {
    let etcd = Etcd::of(3).await;
    let frozen = (etcd.leader().await + 1) % 3;
    let store = etcd.store_from(frozen);
    store.read("/").await.expect("it answers");
    etcd.freeze(frozen);
    // As the agent's keeper does it: its patience ends before the store's.
    let put = Txn::new().put("/a", "1");
    let given_up = timeout(Duration::from_millis(400), store.commit(put.clone())).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let next = timeout(Duration::from_millis(900), store.commit(put)).await;
    let next = next.expect("another member was asked").expect("an answer");
    assert!(next.is_committed());
    etcd.thaw(frozen);
}

/// Each key is put once and for all. An attempt that was made twice would find its own key.
async fn put_once(
    store: EtcdStore,
    writer: usize,
    over: Arc<AtomicBool>,
) -> BTreeMap<String, Result<Outcome, StoreError>> {
    let mut told = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        let key = format!("/once/{writer}/{}", told.len());
        let txn = Txn::new()
            .when(Guard::Absent { key: key.clone() })
            .put(&key, "1");
        told.insert(key, store.commit(txn).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_transaction_is_true() {
    let etcd = Etcd::of(3).await;
    let over = Arc::new(AtomicBool::new(false));
    let writers = (0..6).map(|writer| {
        let store = etcd.store_from(writer % 3);
        tokio::spawn(put_once(store, writer, Arc::clone(&over)))
    });
    let writers: Vec<_> = writers.collect();
    let watcher = etcd.store();
    for round in 0..15 {
        let leader = etcd.leader().await;
        let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
        match round {
            0 => {
                etcd.kill(leader);
                eventually("the others lead", async || watcher.read("/").await.is_ok()).await;
                etcd.run(leader);
            }
            1 => {
                etcd.freeze(leader);
                eventually("the others lead", async || watcher.read("/").await.is_ok()).await;
                etcd.thaw(leader);
            }
            2 => {
                etcd.freeze(next);
                etcd.kill(last);
                // No majority: for as long as somebody is told so.
                eventually("no majority", async || watcher.read("/").await.is_err()).await;
                etcd.thaw(next);
                etcd.run(last);
            }
            // A follower goes with what it has handed on to the leader: others could be asked at once, and must not be.
            _ => {
                let follower = if round % 2 == 0 { next } else { last };
                etcd.kill(follower);
                etcd.run(follower);
                let own = etcd.store_of(follower);
                eventually("it is back", async || own.read("/").await.is_ok()).await;
            }
        }
        eventually("etcd answers", async || watcher.read("/").await.is_ok()).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut told = BTreeMap::new();
    for writer in writers {
        told.extend(writer.await.expect("no panic"));
    }
    let there = etcd.store().read("/once/").await.expect("read");
    let (mut done, mut open, mut not) = (0, 0, 0);
    for (key, said) in &told {
        let is_there = there.value(key).is_some();
        match said {
            Ok(Outcome::Committed { revision }) => {
                assert!(is_there, "{key} was acknowledged");
                assert_eq!(there.entries[key].modified, *revision);
                done += 1;
            }
            Ok(Outcome::Refused) => panic!("{key} was tried twice"),
            Err(StoreError::Unreachable(why)) => {
                assert!(!is_there, "{key} did not happen: {why}");
                not += 1;
            }
            Err(StoreError::Unknown(_)) => open += 1,
            Err(error) => panic!("{key}: {error}"),
        }
    }
    assert!(
        done > 20 && open > 0,
        "{done} done, {open} open, {not} not done"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_under_a_living_connection() {
    let etcd = Etcd::of(1).await;
    let store = etcd.store();
    let lease = store.grant(Duration::from_secs(60)).await.expect("granted");
    let txn = Txn::new().put_leased("/leased/a", "1", lease);
    store.commit(txn).await.expect("committed");
    let mut view = store.view("/leased/");
    let seen = view.wait_for(|seen| seen.value("/leased/a").is_some());
    timeout(PATIENCE, seen).await.expect("seen").expect("alive");
    etcd.ctl(0, &["lease", "revoke", &format!("{:x}", lease.0)]);
    let gone = view.wait_for(|seen| seen.value("/leased/a").is_none());
    timeout(PATIENCE, gone).await.expect("seen").expect("alive");
    for error in [
        store.renew(lease).await.expect_err("ended"),
        store
            .commit(Txn::new().put("/leased/b", "1").renew(lease))
            .await
            .expect_err("ended"),
    ] {
        assert!(
            matches!(error, StoreError::LeaseEnded(ended) if ended == lease),
            "{error}"
        );
    }
    assert!(!has(&store, "/leased/b").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_etcds_leader_cuts_no_lease_short() {
    let etcd = Etcd::of(3).await;
    let leader = etcd.leader().await;
    let store = etcd.store_from((leader + 1) % 3);
    let lease = store.grant(TTL).await.expect("granted");
    let txn = Txn::new().put_leased("/leased/a", "1", lease);
    store.commit(txn).await.expect("committed");
    etcd.kill(leader);
    // Renewals that are acknowledged while leaders change hold what they promise.
    let mut last = None;
    let until = Instant::now() + TTL * 2;
    while Instant::now() < until {
        let sent = Instant::now();
        match store.renew(lease).await {
            Ok(()) => last = Some(sent),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = last.expect("the new leader renews");
    eventually("the lease ends", async || !has(&store, "/leased/a").await).await;
    assert!(last.elapsed() >= TTL, "{:?}", last.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_outlives_its_member_and_a_compaction() {
    let etcd = Etcd::of(3).await;
    let frozen = (etcd.leader().await + 1) % 3;
    let (watcher, writer) = (etcd.store_from(frozen), etcd.store_from((frozen + 1) % 3));
    writer
        .commit(Txn::new().put("/view/a", "0"))
        .await
        .expect("committed");
    let mut view = watcher.view("/view/");
    let first = view.wait_for(|seen| seen.value("/view/a") == Some("0"));
    timeout(PATIENCE, first)
        .await
        .expect("seen")
        .expect("alive");
    let mut every = view.clone();
    let never_back = tokio::spawn(async move {
        let mut last = 0;
        loop {
            let seen = Arc::clone(&every.borrow_and_update());
            assert!(seen.revision >= last, "{} after {last}", seen.revision);
            last = seen.revision;
            if seen.value("/view/a") == Some("end") || every.changed().await.is_err() {
                return;
            }
        }
    });
    etcd.freeze(frozen);
    let mut revision = 0;
    for round in 1..50 {
        let put = writer
            .commit(Txn::new().put("/view/a", round.to_string()))
            .await;
        let Ok(Outcome::Committed { revision: at }) = put else {
            panic!("{put:?}")
        };
        revision = at;
    }
    writer
        .commit(Txn::new().delete("/view/a").put("/view/b", "1"))
        .await
        .expect("committed");
    etcd.ctl((frozen + 1) % 3, &["compact", &revision.to_string()]);
    let caught_up = view.wait_for(|seen| seen.value("/view/b").is_some());
    let caught_up = timeout(PATIENCE, caught_up)
        .await
        .expect("seen")
        .expect("alive")
        .clone();
    assert_eq!(caught_up.value("/view/a"), None);
    etcd.thaw(frozen);
    writer
        .commit(Txn::new().put("/view/a", "end"))
        .await
        .expect("committed");
    timeout(PATIENCE, never_back)
        .await
        .expect("seen")
        .expect("never back");
}

/// One after the other each member gives way to a new one, at an address that nobody has configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_are_replaced_and_the_store_goes_along() {
    let mut etcd = Etcd::of(3).await;
    let mut options = etcd.options();
    options.discover = true;
    let store = EtcdStore::new(options).expect("members");
    let mut view = store.view("/view/");
    let lease = store.grant(Duration::from_secs(60)).await.expect("granted");
    for round in 0..3 {
        etcd.replace_oldest().await;
        let value = round.to_string();
        let put = Txn::new().put_leased("/view/a", &value, lease).renew(lease);
        eventually("a transaction", async || {
            store.commit(put.clone()).await.is_ok()
        })
        .await;
        let seen = view.wait_for(|seen| seen.value("/view/a") == Some(value.as_str()));
        timeout(PATIENCE, seen).await.expect("seen").expect("alive");
    }
    // Of those that were configured none is left.
    assert!(has(&store, "/view/a").await);
    store.renew(lease).await.expect("the same lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_password_are_asked_for() {
    user_and_password(Etcd::of(3).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_password_are_asked_for_over_tls() {
    user_and_password(Etcd::with_tls(3).await).await;
}

async fn user_and_password(etcd: Etcd) {
    for arguments in [
        &["user", "add", "root:planted-root"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "standfast"],
        &[
            "role",
            "grant-permission",
            "standfast",
            "readwrite",
            "/ours/",
            "--prefix",
        ],
        &["user", "add", "standfast:planted-password"],
        &["user", "grant-role", "standfast", "standfast"],
        &["auth", "enable"],
    ] {
        etcd.ctl(0, arguments);
    }
    let with = |user: &str, password: &str| {
        let mut options = etcd.options();
        options.prefix = "/ours/".into();
        options.login = Some(EtcdLogin {
            user: user.into(),
            password: password.into(),
        });
        EtcdStore::new(options).expect("members")
    };
    let denied = |result: Result<_, StoreError>| {
        let error = result.map(|_: store::Snapshot| ()).expect_err("denied");
        assert!(matches!(error, StoreError::Denied(_)), "{error}");
        assert!(!format!("{error:?}").contains("planted"), "{error:?}");
    };
    denied(etcd.store().read("/ours/").await);
    denied(with("standfast", "planted-wrong").read("/ours/").await);
    let store = with("standfast", "planted-password");
    denied(store.read("/theirs/").await);
    let lease = store.grant(Duration::from_secs(60)).await.expect("granted");
    let put = Txn::new().put_leased("/ours/a", "1", lease).renew(lease);
    assert!(
        store
            .commit(put.clone())
            .await
            .expect("allowed")
            .is_committed()
    );
    store.renew(lease).await.expect("allowed");
    let mut view = store.view("/ours/");
    let seen = view.wait_for(|seen| seen.value("/ours/a") == Some("1"));
    timeout(PATIENCE, seen).await.expect("seen").expect("alive");
    // Tokens do not survive a restart of etcd; nobody is told.
    for at in 0..3 {
        etcd.kill(at);
        etcd.run(at);
    }
    eventually("etcd lets us in again", async || {
        has(&store, "/ours/a").await
    })
    .await;
    let put = Txn::new().put("/ours/a", "2");
    eventually("a transaction again", async || {
        store.commit(put.clone()).await.is_ok()
    })
    .await;
    let seen = view.wait_for(|seen| seen.value("/ours/a") == Some("2"));
    timeout(PATIENCE, seen).await.expect("seen").expect("alive");
}

/// Such as behind an older proxy: here one that speaks TLS 1.2 alone, before a member without TLS.
///
/// Patroni: Configuration | `etcd3` with TLS 1.2 | works beside 1.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_knows_no_newer_tls_than_1_2_is_understood() {
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    use tokio_rustls::rustls::{ProtocolVersion, ServerConfig, version::TLS12};
    let etcd = Etcd::of(1).await;
    let authority = common::certificates::Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key);
    let mut config = config.expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let behind = etcd.address(0);
    let front = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.expect("a handshake");
                let version = stream.get_ref().1.protocol_version();
                assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
                let mut plain = tokio::net::TcpStream::connect(behind).await.expect("etcd");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    let path = etcd.path("front.ca");
    common::certificates::replace(&path, &authority.pem);
    let mut options = etcd.options();
    options.members = vec![address];
    options.tls = Some(EtcdTls {
        authority: path,
        client: None,
    });
    let store = EtcdStore::new(options).expect("a member");
    let put = store.commit(Txn::new().put("/a", "1")).await;
    assert!(put.expect("it answers").is_committed());
    assert!(has(&store, "/a").await);
    front.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_asked_for_on_both_sides() {
    let etcd = Etcd::with_tls(1).await;
    let good = etcd.tls("client").expect("certificates");
    let with = |tls: Option<EtcdTls>| {
        let mut options = etcd.options();
        options.tls = tls;
        EtcdStore::new(options).expect("members")
    };
    let other = common::certificates::Authority::new();
    let path = etcd.path("other.ca");
    common::certificates::replace(&path, &other.pem);
    let wrong_authority = EtcdTls {
        authority: path,
        ..good.clone()
    };
    let no_certificate = EtcdTls {
        client: None,
        ..good.clone()
    };
    for (what, tls) in [
        ("another authority", Some(wrong_authority)),
        ("no certificate of ours", Some(no_certificate)),
        ("no TLS", None),
    ] {
        let before = Instant::now();
        let error = with(tls).read("/").await.expect_err(what);
        assert!(
            matches!(error, StoreError::Unreachable(_)),
            "{what}: {error}"
        );
        assert!(before.elapsed() < LIMIT, "{what}: {:?}", before.elapsed());
    }
    let missing = EtcdTls {
        authority: etcd.path("nothing"),
        ..good.clone()
    };
    missing.check().expect_err("no such file");
    // New files are read with the next connection.
    let store = with(Some(good));
    store.read("/").await.expect("let in");
    let certificate = etcd.path("client.crt");
    let kept = std::fs::read_to_string(&certificate).expect("read");
    common::certificates::replace(&certificate, "nothing in PEM");
    etcd.kill(0);
    etcd.run(0);
    store.read("/").await.expect_err("no certificate");
    common::certificates::replace(&certificate, &kept);
    eventually("the renewed certificate is read", async || {
        store.read("/").await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_leads_to_the_others() {
    let etcd = Etcd::of(3).await;
    let mut options = etcd.options();
    options.members.truncate(1);
    options.discover = true;
    let store = EtcdStore::new(options).expect("a member");
    store.read("/").await.expect("it answers");
    let (first, led) = (0, etcd.leader().await == 0);
    // It is asked for its members in the background; the proof is that its death is survived.
    timeout(PATIENCE, async {
        while format!("{store:?}").matches("address:").count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the others are known");
    etcd.kill(first);
    if led {
        eventually("the others lead", async || {
            etcd.store_from(1).read("/").await.is_ok()
        })
        .await;
    }
    store.read("/").await.expect("another member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_left_is_forgotten() {
    let mut etcd = Etcd::of(3).await;
    let mut options = etcd.options();
    options.members = vec![etcd.address(1)];
    options.discover = true;
    let store = EtcdStore::new(options).expect("a member");
    let knows = |address: String| format!("{store:?}").contains(&format!("address: {address:?}"));
    eventually("the others are known", async || {
        store.read("/").await.is_ok() && knows(etcd.address(0)) && knows(etcd.address(2))
    })
    .await;
    etcd.replace_oldest().await;
    // The one that is asked first is away: whoever answers in its stead is asked for those that there are.
    etcd.kill(1);
    eventually("it is known no more", async || {
        store.read("/").await.is_ok() && !knows(etcd.address(0)) && knows(etcd.address(3))
    })
    .await;
    assert!(knows(etcd.address(1)), "it was configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_are_not_taken_for_one() {
    let (one, two) = (Etcd::of(1).await, Etcd::of(1).await);
    let mut options = one.options();
    options.members.push(two.address(0));
    let store = EtcdStore::new(options).expect("members");
    store
        .commit(Txn::new().put("/a", "1"))
        .await
        .expect("committed");
    one.kill(0);
    let error = store.read("/").await.expect_err("another cluster");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    one.run(0);
    eventually("its own is back", async || has(&store, "/a").await).await;
}
