//! What every adapter of [`Store`] must do, run on each of them.

mod common;

use common::etcd::Etcd;
use common::{Cluster, PATIENCE, eventually};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use store::{Fault, Guard, LeaseId, MemoryStore, Outcome, Snapshot, Store, StoreError, Txn, View};
use tokio::time::{Instant, timeout};

/// Two handles on one store, which two processes might hold.
struct Handles {
    one: Arc<dyn Store>,
    two: Arc<dyn Store>,
    /// The shortest time to live that the store grants as it is asked for.
    ttl: Duration,
}

impl Handles {
    fn on(one: impl Store, two: impl Store) -> Self {
        Self {
            one: Arc::new(one),
            two: Arc::new(two),
            ttl: Duration::from_secs(1),
        }
    }
}

/// The whole contract, all clauses at once under prefixes of their own.
async fn keeps_the_contract(handles: &Handles) {
    tokio::join!(
        reads_see_every_commit(handles),
        guards_decide(handles),
        transactions_are_atomic(handles),
        revisions_rise(handles),
        counters_lose_nothing(handles),
        leases_expire(handles),
        renewed_leases_live(handles),
        transactions_renew(handles),
        revoked_leases_are_gone(handles),
        keys_move_between_leases(handles),
        ended_leases_are_named(handles),
        views_follow(handles),
    );
}

fn committed(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed { revision } => revision,
        Outcome::Refused => panic!("refused"),
    }
}

async fn commit(store: &Arc<dyn Store>, txn: Txn) -> u64 {
    committed(store.commit(txn).await.expect("an answer"))
}

async fn reads_see_every_commit(Handles { one, two, .. }: &Handles) {
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 {
            (one, two)
        } else {
            (two, one)
        };
        let value = round.to_string();
        let revision = commit(writer, Txn::new().put("/reads/a", &value)).await;
        let seen = reader.read("/reads/").await.expect("read");
        assert_eq!(seen.value("/reads/a"), Some(value.as_str()));
        assert!(seen.revision >= revision);
        assert_eq!(seen.entries["/reads/a"].modified, revision);
    }
    let nothing = one.read("/reads/nothing/").await.expect("read");
    assert!(nothing.entries.is_empty() && nothing.revision > 0);
}

async fn guards_decide(Handles { one, two, .. }: &Handles) {
    let key = "/guards/a".to_owned();
    let put = |guard: Guard, value: &str| Txn::new().when(guard).put("/guards/a", value);
    let (absent, present) = (
        Guard::Absent { key: key.clone() },
        Guard::Present { key: key.clone() },
    );
    let equals = |value: &str| Guard::Equals {
        key: key.clone(),
        value: value.into(),
    };
    let refused = |outcome| assert_eq!(outcome, Outcome::Refused);

    refused(
        one.commit(put(present.clone(), "0"))
            .await
            .expect("an answer"),
    );
    let first = commit(one, put(absent.clone(), "1")).await;
    refused(
        two.commit(put(absent.clone(), "2"))
            .await
            .expect("an answer"),
    );
    let seen = two.read("/guards/").await.expect("read");
    assert_eq!(
        seen.unchanged(&key),
        Guard::Unchanged {
            key: key.clone(),
            modified: first
        }
    );
    commit(two, put(seen.unchanged(&key), "3")).await;
    refused(
        one.commit(put(seen.unchanged(&key), "4"))
            .await
            .expect("an answer"),
    );
    refused(one.commit(put(equals("1"), "5")).await.expect("an answer"));
    commit(one, put(equals("3"), "6")).await;
    commit(one, Txn::new().when(present).delete("/guards/a")).await;
    let seen = two.read("/guards/").await.expect("read");
    commit(two, put(seen.unchanged(&key), "7")).await;
}

async fn transactions_are_atomic(Handles { one, two, .. }: &Handles) {
    // Two writers fight over a pair of keys that must always be equal.
    let writer = |store: &Arc<dyn Store>, tag: &'static str| {
        let store = Arc::clone(store);
        async move {
            for round in 0..15 {
                let value = format!("{tag}{round}");
                commit(
                    &store,
                    Txn::new().put("/atomic/a", &value).put("/atomic/b", &value),
                )
                .await;
            }
        }
    };
    let reader = async {
        for _ in 0..30 {
            let seen = two.read("/atomic/").await.expect("read");
            assert_eq!(seen.value("/atomic/a"), seen.value("/atomic/b"));
        }
    };
    tokio::join!(writer(one, "x"), writer(two, "y"), reader);
    let half = Txn::new()
        .when(Guard::Present {
            key: "/atomic/a".into(),
        })
        .when(Guard::Absent {
            key: "/atomic/b".into(),
        })
        .delete("/atomic/a");
    assert_eq!(one.commit(half).await.expect("an answer"), Outcome::Refused);
    assert!(
        two.read("/atomic/")
            .await
            .expect("read")
            .value("/atomic/a")
            .is_some()
    );
}

async fn revisions_rise(Handles { one, two, .. }: &Handles) {
    let first = commit(
        one,
        Txn::new().put("/revisions/a", "1").put("/revisions/b", "1"),
    )
    .await;
    let second = commit(two, Txn::new().put("/revisions/a", "2")).await;
    assert!(second > first);
    let seen = one.read("/revisions/").await.expect("read");
    let (a, b) = (&seen.entries["/revisions/a"], &seen.entries["/revisions/b"]);
    assert_eq!((a.created, a.modified), (first, second));
    assert_eq!((b.created, b.modified), (first, first));
    commit(one, Txn::new().delete("/revisions/a")).await;
    let again = commit(two, Txn::new().put("/revisions/a", "2")).await;
    let seen = one.read("/revisions/").await.expect("read");
    assert_eq!(seen.entries["/revisions/a"].created, again);
}

async fn counters_lose_nothing(Handles { one, two, .. }: &Handles) {
    let count = |store: &Arc<dyn Store>| {
        let store = Arc::clone(store);
        async move {
            for _ in 0..10 {
                loop {
                    let seen = store.read("/counter").await.expect("read");
                    let value: u64 = seen
                        .value("/counter")
                        .unwrap_or("0")
                        .parse()
                        .expect("digits");
                    let txn = Txn::new()
                        .when(seen.unchanged("/counter"))
                        .put("/counter", (value + 1).to_string());
                    if store.commit(txn).await.expect("an answer").is_committed() {
                        break;
                    }
                }
            }
        }
    };
    join_all([count(one), count(two), count(one)]).await;
    let seen = two.read("/counter").await.expect("read");
    assert_eq!(seen.value("/counter"), Some("30"));
}

async fn is_gone(store: &Arc<dyn Store>, key: &str) -> bool {
    store.read(key).await.expect("read").value(key).is_none()
}

async fn leases_expire(Handles { one, two, ttl }: &Handles) {
    let ttl = *ttl;
    let before = Instant::now();
    let lease = one.grant(ttl).await.expect("granted");
    commit(
        one,
        Txn::new()
            .put_leased("/expire/a", "1", lease)
            .put("/expire/b", "1"),
    )
    .await;
    eventually("the key of an ended lease goes", || {
        is_gone(two, "/expire/a")
    })
    .await;
    assert!(
        before.elapsed() >= ttl,
        "ended after {:?}",
        before.elapsed()
    );
    assert!(
        before.elapsed() < ttl * 3,
        "ended after {:?}",
        before.elapsed()
    );
    assert!(!is_gone(two, "/expire/b").await);
    let error = one.renew(lease).await.expect_err("ended");
    assert!(
        matches!(error, StoreError::LeaseEnded(ended) if ended == lease),
        "{error}"
    );
}

async fn renewed_leases_live(Handles { one, two, ttl }: &Handles) {
    let ttl = *ttl;
    let lease = one.grant(ttl).await.expect("granted");
    commit(two, Txn::new().put_leased("/renew/a", "1", lease)).await;
    let mut last = Instant::now();
    let until = Instant::now() + ttl * 5 / 2;
    // Renewals race the expiry: any that is answered by yes keeps the key for another `ttl`.
    while Instant::now() < until {
        tokio::time::sleep(ttl * 2 / 5).await;
        last = Instant::now();
        one.renew(lease).await.expect("renewed");
        assert!(!is_gone(two, "/renew/a").await);
    }
    eventually("a lease that is no longer renewed ends", || {
        is_gone(two, "/renew/a")
    })
    .await;
    assert!(last.elapsed() >= ttl);
}

async fn transactions_renew(Handles { one, two, ttl }: &Handles) {
    let ttl = *ttl;
    let lease = one.grant(ttl).await.expect("granted");
    commit(one, Txn::new().put_leased("/txn-renew/a", "1", lease)).await;
    tokio::time::sleep(ttl * 3 / 5).await;
    let renewed = Instant::now();
    commit(
        two,
        Txn::new()
            .when(Guard::Present {
                key: "/txn-renew/a".into(),
            })
            .renew(lease),
    )
    .await;
    // A refused one need not: what it was to be renewed for is no longer so.
    tokio::time::sleep(ttl * 3 / 5).await;
    let txn = Txn::new()
        .when(Guard::Absent {
            key: "/txn-renew/a".into(),
        })
        .renew(lease);
    assert_eq!(two.commit(txn).await.expect("an answer"), Outcome::Refused);
    eventually("the lease ends", || is_gone(two, "/txn-renew/a")).await;
    assert!(renewed.elapsed() >= ttl);
    assert!(renewed.elapsed() < ttl * 3, "{:?}", renewed.elapsed());
}

async fn revoked_leases_are_gone(Handles { one, two, .. }: &Handles) {
    let lease = one.grant(Duration::from_secs(60)).await.expect("granted");
    commit(
        one,
        Txn::new()
            .put_leased("/revoke/a", "1", lease)
            .put_leased("/revoke/b", "1", lease),
    )
    .await;
    two.revoke(lease).await.expect("revoked");
    assert!(one.read("/revoke/").await.expect("read").entries.is_empty());
    let error = two.revoke(lease).await.expect_err("no such lease");
    assert!(matches!(error, StoreError::LeaseEnded(_)), "{error}");
}

async fn keys_move_between_leases(Handles { one, two, .. }: &Handles) {
    let first = one.grant(Duration::from_secs(60)).await.expect("granted");
    let second = two.grant(Duration::from_secs(60)).await.expect("granted");
    assert_ne!(first, second);
    let txn = Txn::new()
        .put_leased("/attach/moved", "1", first)
        .put_leased("/attach/freed", "1", first)
        .put_leased("/attach/left", "1", first);
    commit(one, txn).await;
    commit(
        one,
        Txn::new()
            .put_leased("/attach/moved", "2", second)
            .put("/attach/freed", "2"),
    )
    .await;
    let seen = two.read("/attach/").await.expect("read");
    assert_eq!(seen.entries["/attach/moved"].lease, Some(second));
    assert_eq!(seen.entries["/attach/freed"].lease, None);
    one.revoke(first).await.expect("revoked");
    let keys = |seen: Snapshot| seen.entries.into_keys().collect::<Vec<_>>();
    let seen = two.read("/attach/").await.expect("read");
    assert_eq!(keys(seen), ["/attach/freed", "/attach/moved"]);
    one.revoke(second).await.expect("revoked");
    let seen = two.read("/attach/").await.expect("read");
    assert_eq!(keys(seen), ["/attach/freed"]);
}

async fn ended_leases_are_named(Handles { one, two, .. }: &Handles) {
    let gone = LeaseId(0x0123_4567_89ab_cdef);
    for error in [
        one.commit(Txn::new().put_leased("/ended/a", "1", gone))
            .await
            .map(drop),
        two.commit(Txn::new().put("/ended/a", "1").renew(gone))
            .await
            .map(drop),
        two.renew(gone).await,
    ] {
        let error = error.expect_err("no such lease");
        assert!(
            matches!(error, StoreError::LeaseEnded(ended) if ended == gone),
            "{error}"
        );
        assert!(!error.is_retryable());
    }
    assert!(one.read("/ended/").await.expect("read").entries.is_empty());
}

async fn seen(view: &mut View, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let waited = timeout(PATIENCE, view.wait_for(|snapshot| holds(snapshot))).await;
    Arc::clone(
        &waited
            .unwrap_or_else(|_| panic!("not seen: {what}"))
            .expect("a living view"),
    )
}

async fn views_follow(Handles { one, two, ttl }: &Handles) {
    let first = commit(one, Txn::new().put("/views/a", "1").put("/views-not", "1")).await;
    let mut view = two.view("/views/");
    let snapshot = seen(&mut view, "the first key", |seen| {
        seen.value("/views/a") == Some("1")
    })
    .await;
    assert!(snapshot.revision >= first);
    assert_eq!(snapshot.entries.len(), 1);

    let mut watched = two.view("/views/");
    let watching = async {
        let mut last = 0;
        loop {
            let snapshot = Arc::clone(&watched.borrow_and_update());
            assert!(
                snapshot.revision >= last,
                "{} after {last}",
                snapshot.revision
            );
            last = snapshot.revision;
            if snapshot.value("/views/a") == Some("end") {
                return;
            }
            timeout(PATIENCE, watched.changed())
                .await
                .expect("news")
                .expect("a living view");
        }
    };
    let writing = async {
        for round in 0..30 {
            let writer = if round % 2 == 0 { one } else { two };
            commit(writer, Txn::new().put("/views/a", round.to_string())).await;
        }
        commit(one, Txn::new().put("/views/a", "end")).await;
    };
    tokio::join!(watching, writing);
    // What leaves is seen too, also by the end of a lease.
    let lease = one.grant(*ttl / 2).await.expect("granted");
    commit(one, Txn::new().put_leased("/views/b", "1", lease)).await;
    seen(&mut view, "a leased key", |seen| {
        seen.value("/views/b").is_some()
    })
    .await;
    seen(&mut view, "its end", |seen| {
        seen.value("/views/b").is_none()
    })
    .await;
    commit(two, Txn::new().delete("/views/a")).await;
    seen(&mut view, "a deletion", |seen| seen.entries.is_empty()).await;
}

/// A store that is cut off says so, soon, and says no more than it knows.
async fn says_when_it_is_cut_off(store: &dyn Store, limit: Duration) {
    let cut_off = |error: StoreError, what: &str| {
        assert!(error.is_retryable(), "{what}: {error}");
        error
    };
    let before = Instant::now();
    let read = store.read("/").await.expect_err("cut off");
    assert!(matches!(cut_off(read, "read"), StoreError::Unreachable(_)));
    assert!(before.elapsed() < limit, "read took {:?}", before.elapsed());
    let before = Instant::now();
    cut_off(
        store
            .commit(Txn::new().put("/cut", "1"))
            .await
            .expect_err("cut off"),
        "commit",
    );
    assert!(
        before.elapsed() < limit,
        "commit took {:?}",
        before.elapsed()
    );
    let before = Instant::now();
    cut_off(
        store
            .grant(Duration::from_secs(1))
            .await
            .expect_err("cut off"),
        "grant",
    );
    assert!(
        before.elapsed() < limit,
        "grant took {:?}",
        before.elapsed()
    );
    let before = Instant::now();
    cut_off(store.renew(LeaseId(1)).await.expect_err("cut off"), "renew");
    assert!(
        before.elapsed() < limit,
        "renew took {:?}",
        before.elapsed()
    );
}

/// The request timeout, and time for a busy machine to notice.
const LIMIT: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn memory_keeps_the_contract() {
    let store = MemoryStore::new();
    let other = store.handle();
    keeps_the_contract(&Handles::on(store.clone(), other.clone())).await;
    let mut view = store.view("/cut");
    store.set_fault(Fault::Unreachable);
    says_when_it_is_cut_off(&store, LIMIT).await;
    other
        .commit(Txn::new().put("/cut", "2"))
        .await
        .expect("the other one is not");
    assert_eq!(view.borrow_and_update().value("/cut"), None);
    store.set_fault(Fault::AnswersLost);
    let error = store
        .commit(Txn::new().put("/cut", "3"))
        .await
        .expect_err("lost");
    assert!(matches!(error, StoreError::Unknown(_)));
    store.set_fault(Fault::None);
    assert_eq!(view.borrow_and_update().value("/cut"), Some("3"));
}

#[tokio::test]
async fn a_lone_raft_member_keeps_the_contract() {
    let cluster = Cluster::of(&["a"]).await;
    let store = cluster.member(0).clone();
    keeps_the_contract(&Handles::on(store.clone(), store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_raft_members_keep_the_contract() {
    members_keep_the_contract(Cluster::of(&["a", "b", "c"]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_raft_members_keep_the_contract_over_tls() {
    members_keep_the_contract(Cluster::with_tls(&["a", "b", "c"]).await).await;
}

async fn members_keep_the_contract(mut cluster: Cluster) {
    let leader = cluster.leader().await;
    let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
    // Both followers, so that every call is forwarded; then the leader itself.
    let handles = Handles::on(cluster.member(next).clone(), cluster.member(last).clone());
    keeps_the_contract(&handles).await;
    drop(handles);
    cluster.stop(last).await;
    cluster.stop(next).await;
    says_when_it_is_cut_off(cluster.member(leader), LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_client_keeps_the_contract() {
    client_keeps_the_contract(Cluster::of(&["a", "b", "c"]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_client_keeps_the_contract_over_tls() {
    client_keeps_the_contract(Cluster::with_tls(&["a", "b", "c"]).await).await;
}

async fn client_keeps_the_contract(mut cluster: Cluster) {
    let remote = cluster.remote();
    let member = cluster.member(1).clone();
    keeps_the_contract(&Handles::on(remote.clone(), member)).await;
    cluster.stop_all().await;
    says_when_it_is_cut_off(&remote, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    etcd_cluster_keeps_the_contract(Etcd::of(3).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract_over_tls() {
    etcd_cluster_keeps_the_contract(Etcd::with_tls(3).await).await;
}

async fn etcd_cluster_keeps_the_contract(etcd: Etcd) {
    let store = etcd.store();
    let handles = Handles {
        // One and a half election timeouts, in whole seconds.
        ttl: Duration::from_secs(2),
        ..Handles::on(store.clone(), etcd.store_from(1))
    };
    keeps_the_contract(&handles).await;
    // Frozen ones keep their connections and say nothing; dead ones refuse.
    (0..3).for_each(|at| etcd.freeze(at));
    says_when_it_is_cut_off(&store, LIMIT).await;
    (0..3).for_each(|at| etcd.thaw(at));
    (0..3).for_each(|at| etcd.kill(at));
    says_when_it_is_cut_off(&store, LIMIT).await;
}
