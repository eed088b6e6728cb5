//! How clusters come about, change, lose members and go on.

#![allow(clippy::print_stdout, reason = "figures for who looks")]

mod common;

use common::log::Log;
use common::{CLUSTER, Cluster, PATIENCE, eventually, name, secret, voters};
use std::time::Duration;
use store::{
    Options, RaftStore, RemoteOptions, RemoteStore, Role, Secret, Snapshot, Start, Store,
    StoreError, Txn,
};
use tokio::time::Instant;

async fn put(store: &RaftStore, key: &str) {
    eventually("a write is committed", || async {
        store
            .commit(Txn::new().put(key, "1"))
            .await
            .is_ok_and(|outcome| outcome.is_committed())
    })
    .await;
}

async fn all(store: &RaftStore) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.read("/").await {
            Ok(snapshot) => return snapshot.entries.into_keys().collect(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_with_its_witness_comes_about_by_itself() {
    let mut cluster = Cluster::planned(&["monitor", "a", "b"]);
    cluster.start(0, Start::Found).await;
    cluster.member(0).ready(PATIENCE).await.expect("founded");
    put(cluster.member(0), "/early").await;
    let known = Start::Join(vec![cluster.places[0].address.clone()]);

    cluster.start(1, known.clone()).await;
    cluster
        .until(0, "a is a learner", |members| members.len() == 2)
        .await;
    cluster.member(1).ready(PATIENCE).await.expect("joined");
    assert_eq!(
        voters(&cluster.member(0).members().await.expect("members")),
        ["monitor"]
    );
    assert_eq!(all(cluster.member(1)).await, ["/early"]);

    cluster.start(2, known).await;
    cluster
        .until(0, "all three vote", |members| voters(members).len() == 3)
        .await;
    for at in 0..3 {
        let members = cluster.member(at).members().await.expect("members");
        let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "monitor"]);
        assert_eq!(members.iter().filter(|member| member.leader).count(), 1);
    }
    // The founder may go for good.
    cluster.stop(0).await;
    put(cluster.member(1), "/late").await;
    assert_eq!(all(cluster.member(2)).await, ["/early", "/late"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_restart_needs_one_particular_machine() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    put(cluster.member(0), "/kept").await;
    let ids: Vec<_> = cluster.running().map(|(_, store)| store.id()).collect();
    cluster.stop_all().await;
    // Not even the list is needed: nobody answers at this address.
    let nowhere = Start::Join(vec!["127.0.0.1:1".into()]);
    for absent in 0..3 {
        for at in (0..3).filter(|at| *at != absent) {
            cluster.start(at, nowhere.clone()).await;
        }
        let (one, other) = ((absent + 1) % 3, (absent + 2) % 3);
        cluster.member(one).ready(PATIENCE).await.expect("a leader");
        put(cluster.member(one), &format!("/without-{absent}")).await;
        assert_eq!(cluster.member(other).id(), ids[other]);
        cluster.stop_all().await;
    }
    for at in 0..3 {
        cluster.start(at, nowhere.clone()).await;
    }
    let keys = all(cluster.member(2)).await;
    assert_eq!(keys, ["/kept", "/without-0", "/without-1", "/without-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_in_about_a_second() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    put(cluster.member(0), "/before").await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.stop(leader).await;
    let before = Instant::now();
    put(cluster.member(follower), "/after").await;
    let gap = before.elapsed();
    println!("replaced after {gap:?}");
    // Under one second on a quiet machine; tests share theirs.
    assert!(gap < Duration::from_secs(3), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_does_not_cut_a_lease_short() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let store = cluster.member((leader + 1) % 3).clone();
    let ttl = Duration::from_secs(2);
    let lease = store.grant(ttl).await.expect("granted");
    store
        .commit(Txn::new().put_leased("/leased", "1", lease))
        .await
        .expect("committed");
    tokio::time::sleep(ttl / 2).await;
    let renewed = Instant::now();
    store.renew(lease).await.expect("renewed");
    cluster.stop(leader).await;
    let mut view = store.view("/leased");
    let gone = view.wait_for(|seen: &std::sync::Arc<Snapshot>| seen.entries.is_empty());
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("it ends at last")
        .expect("a living view");
    let lived = renewed.elapsed();
    assert!(lived >= ttl, "{lived:?}");
    assert!(lived < ttl * 2 + Duration::from_secs(3), "{lived:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_comes_back_as_a_new_member() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    put(cluster.member(0), "/kept").await;
    let old = cluster.member(2).id();
    cluster.stop(2).await;
    std::fs::remove_dir_all(&cluster.places[2].directory).expect("wiped");
    // It may even be the one that would found.
    cluster.start(2, cluster.all()).await;
    let new = cluster.member(2).id();
    assert_ne!(old, new);
    cluster
        .until(0, "the new c votes, the old one is forgotten", |members| {
            let c: Vec<_> = members.iter().filter(|member| member.name == "c").collect();
            c.len() == 1 && c[0].id == new && c[0].role == Role::Voter && members.len() == 3
        })
        .await;
    assert_eq!(all(cluster.member(2)).await, ["/kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_founder_of_a_list_does_not_found_again_when_it_was_wiped() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    put(cluster.member(1), "/kept").await;
    cluster.stop_all().await;
    std::fs::remove_dir_all(&cluster.places[0].directory).expect("wiped");
    for at in 0..3 {
        cluster.start(at, cluster.all()).await;
    }
    cluster.member(0).ready(PATIENCE).await.expect("joined");
    assert_eq!(all(cluster.member(0)).await, ["/kept"]);
    cluster
        .until(1, "three members", |members| {
            members.len() == 3 && voters(members).len() == 3
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_founds_only_when_everybody_is_there() {
    let mut cluster = Cluster::planned(&["a", "b", "c"]);
    cluster.start(0, cluster.all()).await;
    cluster.start(1, cluster.all()).await;
    let error = cluster
        .member(0)
        .ready(Duration::from_secs(1))
        .await
        .expect_err("not yet");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let error = cluster.member(1).read("/").await.expect_err("no cluster");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    cluster.start(2, cluster.all()).await;
    cluster.member(2).ready(PATIENCE).await.expect("founded");
    // A member that has just come in and can't ask the leader tells what it knows itself: nothing yet.
    cluster
        .until(2, "three voters", |members| voters(members).len() == 3)
        .await;
}

fn impatient(options: &mut Options) {
    options.timing.dead_voter_grace = Duration::from_secs(3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_gives_its_vote_to_a_learner() {
    let mut cluster = Cluster::planned(&["a", "b", "c", "d"]);
    cluster.tune = impatient;
    cluster.start(0, Start::Found).await;
    let known = Start::Join(vec![cluster.places[0].address.clone()]);
    for at in 1..4 {
        cluster.start(at, known.clone()).await;
        // One after the other, so that d is the learner.
        cluster
            .until(0, "it joined", |members| members.len() == at + 1)
            .await;
        if at == 2 {
            cluster
                .until(0, "three vote", |members| voters(members).len() == 3)
                .await;
        }
    }
    assert_eq!(
        voters(&cluster.member(0).members().await.expect("members")),
        ["a", "b", "c"]
    );
    cluster.stop(2).await;
    cluster
        .until(0, "d votes", |members| voters(members) == ["a", "b", "d"])
        .await;
    // With c dead, the majority holds after one more loss.
    cluster.stop(1).await;
    put(cluster.member(3), "/two-lost").await;
    cluster.start(2, Start::Join(vec![])).await;
    assert_eq!(all(cluster.member(2)).await, ["/two-lost"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_gone_and_stops() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let (gone, left) = (leader, (leader + 1) % 3);
    let removed = cluster.places[gone].name.clone();
    // The leader itself, told by another member.
    cluster
        .member(left)
        .remove_member(&removed)
        .await
        .expect("removed");
    cluster
        .until(left, "two members, one voter", |members| {
            members.len() == 2 && voters(members).len() == 1
        })
        .await;
    put(cluster.member(left), "/after").await;
    let failed = tokio::time::timeout(PATIENCE, cluster.member(gone).failed()).await;
    let error = failed.expect("it learns that it was removed");
    assert!(error.to_string().contains("no longer a member"), "{error}");
    // Asked again, it has left already.
    cluster
        .member(left)
        .remove_member(&removed)
        .await
        .expect("gone already");
    // Back with an empty directory it is welcome.
    cluster.stop(gone).await;
    std::fs::remove_dir_all(&cluster.places[gone].directory).expect("wiped");
    cluster
        .start(
            gone,
            Start::Join(vec![cluster.places[left].address.clone()]),
        )
        .await;
    cluster
        .until(left, "three vote again", |members| {
            voters(members).len() == 3
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_leader_serves_nothing() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    put(cluster.member(leader), "/before").await;
    for at in (0..3).filter(|at| *at != leader) {
        cluster.stop(at).await;
    }
    let store = cluster.member(leader);
    let error = store.read("/").await.expect_err("no majority");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let error = store
        .commit(Txn::new().put("/lost", "1"))
        .await
        .expect_err("no majority");
    assert!(error.is_retryable(), "{error}");
    // Once it knows, it takes nothing into its log that might happen much later.
    eventually("it refuses at once", || async {
        let error = store
            .commit(Txn::new().put("/lost", "1"))
            .await
            .expect_err("no majority");
        matches!(error, StoreError::Unreachable(_))
    })
    .await;
    // Its view still shows what it knew.
    assert_eq!(store.view("/before").borrow().value("/before"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::planned(&["a", "b"]);
    cluster.tune = |options| options.snapshot_every = 100;
    cluster.start(0, Start::Found).await;
    cluster.member(0).ready(PATIENCE).await.expect("founded");
    let store = cluster.member(0).clone();
    // Larger than one piece of a snapshot.
    for round in 0..50 {
        let txn = (0..10).fold(Txn::new(), |txn, key| {
            txn.put(format!("/big/{}", round * 10 + key), "v".repeat(1000))
        });
        store.commit(txn).await.expect("committed");
    }
    for round in 0..200 {
        store
            .commit(Txn::new().put("/small", round.to_string()))
            .await
            .expect("committed");
    }
    cluster
        .start(1, Start::Join(vec![cluster.places[0].address.clone()]))
        .await;
    cluster.member(1).ready(PATIENCE).await.expect("joined");
    let mut view = cluster.member(1).view("/");
    let whole = view.wait_for(|seen| seen.entries.len() == 501);
    tokio::time::timeout(PATIENCE, whole)
        .await
        .expect("all of it")
        .expect("a living view");
    // And it keeps it.
    cluster.stop(1).await;
    cluster.start(1, Start::Join(vec![])).await;
    assert_eq!(cluster.member(1).view("/big/").borrow().entries.len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_is_found_again() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.stop(2).await;
    cluster.places[2].address = Cluster::planned(&["x"]).places[0].address.clone();
    let moved = cluster.places[2].address.clone();
    cluster.start(2, Start::Join(vec![])).await;
    cluster
        .until(0, "the others know its new address", |members| {
            members
                .iter()
                .any(|member| member.name == "c" && member.address == moved)
        })
        .await;
    cluster.member(2).ready(PATIENCE).await.expect("led again");
}

/// A machine that is gone answers nothing, and refuses nothing either.
#[tokio::test]
async fn who_is_no_member_goes_on_with_those_that_answer() {
    let cluster = Cluster::of(&["a"]).await;
    put(cluster.member(0), "/before").await;
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute = mute.local_addr().map(|at| (at.to_string(), mute));
    let (address, _open) = mute.expect("an address");
    let addresses = vec![address, cluster.places[0].address.clone()];
    let remote = RemoteStore::new(RemoteOptions::new(addresses, CLUSTER, secret()));
    let mut view = remote.view("/");
    let seen = view.wait_for(|seen| seen.entries.contains_key("/before"));
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    seen.expect("in time").expect("it is followed");
    // The view alone has found out who answers.
    let txn = Txn::new().put("/after", "1");
    let outcome = remote.commit(txn).await.expect("at the first attempt");
    assert!(outcome.is_committed());
}

#[tokio::test]
async fn another_secret_is_refused_with_a_sentence() {
    let mut cluster = Cluster::of(&["a"]).await;
    let other = Secret::new(b"quite another secret").expect("long enough");
    let addresses = vec![cluster.places[0].address.clone()];
    let remote = RemoteStore::new(RemoteOptions::new(
        addresses.clone(),
        CLUSTER,
        other.clone(),
    ));
    let error = remote.read("/").await.expect_err("denied");
    assert!(matches!(error, StoreError::Denied(_)), "{error}");
    assert!(error.to_string().contains("same secret file"), "{error}");
    let remote = RemoteStore::new(RemoteOptions::new(addresses.clone(), "elsewhere", secret()));
    let error = remote.read("/").await.expect_err("denied");
    assert!(error.to_string().contains("another cluster"), "{error}");
    // A member with another secret stays outside.
    let mut stranger = Cluster::planned(&["b"]);
    let mut options = stranger.options(0, Start::Join(addresses));
    options.secret = other;
    let store = RaftStore::start(options).await.expect("started");
    store
        .ready(Duration::from_millis(700))
        .await
        .expect_err("not let in");
    assert_eq!(cluster.member(0).members().await.expect("members").len(), 1);
    store.shutdown().await;
    stranger.stop_all().await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_directory_serves_one_process_at_a_time() {
    let mut cluster = Cluster::of(&["a"]).await;
    let again = RaftStore::start(cluster.options(0, Start::Found)).await;
    let error = again.expect_err("in use");
    assert!(matches!(error, StoreError::Fatal(_)), "{error}");
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    cluster.stop(0).await;
    cluster.start(0, Start::Found).await;
    cluster.member(0).ready(PATIENCE).await.expect("free again");
}

#[tokio::test]
async fn a_name_belongs_to_one_live_member() {
    let cluster = Cluster::of(&["a"]).await;
    let twin = Cluster::planned(&["a"]);
    let known = Start::Join(vec![cluster.places[0].address.clone()]);
    let store = RaftStore::start(twin.options(0, known))
        .await
        .expect("started");
    store
        .ready(Duration::from_millis(700))
        .await
        .expect_err("not let in");
    assert_eq!(cluster.member(0).members().await.expect("members").len(), 1);
    let list = [(name("x"), "127.0.0.1:1".to_owned())].into();
    let error = RaftStore::start(twin.options(0, Start::Members(list))).await;
    assert!(matches!(error, Err(StoreError::Denied(_))));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_goes_on_after_a_majority_is_lost_for_good() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    put(cluster.member(0), "/kept").await;
    let nowhere = Start::Join(vec![]);
    // Not while it runs, and not while the others are there.
    let error = RaftStore::recover(&cluster.options(0, nowhere.clone()))
        .await
        .expect_err("running");
    assert!(error.to_string().contains("in use"), "{error}");
    cluster.stop(0).await;
    let error = RaftStore::recover(&cluster.options(0, nowhere.clone()))
        .await
        .expect_err("refused");
    assert!(matches!(error, StoreError::Denied(_)), "{error}");
    // Nor while one of them is: with this one that is a majority.
    cluster.stop(1).await;
    eventually("it is refused, and with a hint", || async {
        let options = cluster.options(0, Start::Join(vec![]));
        let error = RaftStore::recover(&options).await.expect_err("refused");
        assert!(matches!(error, StoreError::Denied(_)), "{error}");
        error.to_string().contains("start this member instead")
    })
    .await;

    cluster.stop(2).await;
    RaftStore::recover(&cluster.options(0, nowhere.clone()))
        .await
        .expect("recovered");
    cluster.start(0, nowhere.clone()).await;
    cluster.member(0).ready(PATIENCE).await.expect("alone");
    assert_eq!(
        voters(&cluster.member(0).members().await.expect("members")),
        ["a"]
    );
    put(cluster.member(0), "/after").await;
    assert_eq!(all(cluster.member(0)).await, ["/after", "/kept"]);

    // One left behind finds out, and joins with an empty directory.
    cluster.start(1, nowhere).await;
    let failed = tokio::time::timeout(PATIENCE, cluster.member(1).failed()).await;
    assert!(
        failed
            .expect("it finds out")
            .to_string()
            .contains("no longer a member")
    );
    cluster.stop(1).await;
    std::fs::remove_dir_all(&cluster.places[1].directory).expect("wiped");
    cluster
        .start(1, Start::Join(vec![cluster.places[0].address.clone()]))
        .await;
    cluster.member(1).ready(PATIENCE).await.expect("joined");
    assert_eq!(all(cluster.member(1)).await, ["/after", "/kept"]);
    // And it may start again later.
    cluster.stop(0).await;
    cluster.start(0, Start::Join(vec![])).await;
    cluster.member(0).ready(PATIENCE).await.expect("as it was");
}

#[tokio::test]
async fn what_never_was_in_a_cluster_is_not_recovered() {
    let cluster = Cluster::planned(&["a"]);
    let error = RaftStore::recover(&cluster.options(0, Start::Found))
        .await
        .expect_err("nothing");
    assert!(matches!(error, StoreError::Denied(_)), "{error}");
}

#[tokio::test]
async fn a_member_that_was_stopped_is_no_failure() {
    let (log, _guard) = Log::begin();
    let cluster = Cluster::of(&["a"]).await;
    let member = cluster.member(0).clone();
    member.shutdown().await;
    // Somebody who has not heard of it.
    let error = member.read("/").await.expect_err("stopped");
    assert!(error.to_string().contains("was stopped"), "{error}");
    let error = member.members().await.expect_err("stopped");
    assert!(matches!(error, StoreError::Fatal(_)), "{error}");
    assert!(!log.text().contains("ERROR"), "{}", log.text());
}
