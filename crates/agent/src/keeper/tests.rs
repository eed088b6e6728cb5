//! What the keeper writes, on a store in memory.

use super::*;
use ha::{Epoch, Instant, NodeState};
use std::collections::BTreeSet;
use std::sync::Mutex;
use store::layout::{MemberExtra, MemberRecord};
use store::{MemoryStore, View};
use tokio::task::JoinHandle;

/// What a guard would be told.
#[derive(Debug, Default)]
struct Orders(Mutex<Vec<(&'static str, Instant)>>);

impl Enforcer for Orders {
    fn arm(&self, _epoch: Epoch, deadline: Instant) {
        self.0.lock().expect("no panic").push(("arm", deadline));
    }

    fn shorten(&self, _epoch: Epoch, deadline: Instant) {
        self.0.lock().expect("no panic").push(("shorten", deadline));
    }
}

const WITHIN: Duration = Duration::from_secs(10);

struct World {
    store: Arc<dyn Store>,
    keys: Keys,
    tenure: Arc<Tenure>,
    orders: Arc<Orders>,
    said: watch::Sender<Said>,
    key: String,
    view: View,
    keeper: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

pub(crate) fn record(position: Lsn) -> MemberRecord {
    MemberRecord {
        conn_url: "postgres://127.0.0.1:5432/postgres".to_owned(),
        api_url: "http://127.0.0.1:8008/patroni".to_owned(),
        state: "running".to_owned(),
        role: "replica".to_owned(),
        version: "0.1.0".to_owned(),
        xlog_location: position,
        timeline: ha::Timeline(1),
        standfast: Some(MemberExtra {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            state: NodeState::Standby,
            assigned: NodeState::Standby,
            reason: "a standby".to_owned(),
            rule: "standby".to_owned(),
            unfit: None,
            stream_says: None,
            troubles: Vec::new(),
            identity: "a".to_owned(),
            server_version: 150_018,
            ties: ha::Ties::default(),
            remembers: None,
        }),
        ..MemberRecord::default()
    }
}

impl World {
    /// A standby's keeper; its lease is renewed each second.
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let keys = Keys::new("standfast", "test");
        let me = NodeName::new("a").expect("a plain name");
        let settings = Settings {
            ttl: Duration::from_secs(3),
            ..Settings::default()
        };
        let (said, heard) = watch::channel(Said {
            member: Some(record(Lsn(0x300_0000))),
            optime: Some((Epoch(1), Lsn::ZERO)),
            slots: BTreeMap::new(),
            failsafe: None,
            settings,
        });
        let key = keys.member(&me);
        let view = store.view(keys.prefix());
        let (tenure, orders) = (Arc::<Tenure>::default(), Arc::<Orders>::default());
        let keeper = Keeper {
            store: Arc::clone(&store),
            keys: keys.clone(),
            me,
            tenure: Arc::clone(&tenure),
            said: heard,
            enforcer: Arc::clone(&orders) as Arc<dyn Enforcer>,
            figures: Arc::default(),
            wake: Arc::default(),
        };
        Self {
            store,
            keys,
            tenure,
            orders,
            said,
            key,
            view,
            keeper: tokio::spawn(keeper.run()),
        }
    }

    fn say(&self, change: impl FnOnce(&mut MemberRecord)) {
        self.said.send_modify(|said| {
            if let Some(member) = &mut said.member {
                change(member);
            }
        });
    }

    fn written(&self) -> Option<(i64, MemberRecord)> {
        let snapshot = self.view.borrow();
        let entry = snapshot.entries.get(&self.key)?;
        let record = serde_json::from_str(&entry.value).expect("a member record");
        Some((i64::try_from(entry.modified).expect("small"), record))
    }

    async fn until(&mut self, wanted: impl Fn(&MemberRecord) -> bool) {
        let key = self.key.clone();
        let seen = self.view.wait_for(|snapshot| {
            let entry = snapshot.entries.get(&key);
            entry.is_some_and(|entry| {
                wanted(&serde_json::from_str(&entry.value).expect("a member record"))
            })
        });
        let seen = tokio::time::timeout(WITHIN, seen).await;
        seen.expect("it is written in time").expect("a view");
    }
}

#[tokio::test]
async fn a_position_that_moves_is_written_once_a_second_and_is_exact_when_it_rests() {
    let mut world = World::new();
    world.until(|_| true).await;
    let began = now();
    let mut writes = BTreeSet::new();
    let mut position = Lsn(0x300_0000);
    while now().since(began) < Duration::from_millis(2500) {
        position = Lsn(position.0 + 100_001);
        world.say(|member| member.xlog_location = position);
        let _ = tokio::time::timeout(Duration::from_millis(10), world.view.changed()).await;
        writes.extend(world.written().map(|(revision, _)| revision));
    }
    assert!(writes.len() <= 4, "{} writes in 2.5 s", writes.len());
    world.until(|member| member.xlog_location == position).await;
}

#[tokio::test]
async fn news_are_written_at_once_also_while_the_position_moves() {
    let mut world = World::new();
    world.until(|_| true).await;
    world.say(|member| member.xlog_location = Lsn(0x300_0060));
    world
        .until(|member| member.xlog_location == Lsn(0x300_0060))
        .await;
    world.say(|member| member.xlog_location = Lsn(0x300_0088));
    let began = now();
    world.say(|member| member.role = "primary".to_owned());
    world.until(|member| member.role == "primary").await;
    let took = now().since(began);
    assert!(took < Duration::from_millis(500), "{took:?}");
}

async fn until_true(what: &str, mut done: impl FnMut() -> bool) {
    let began = now();
    while !done() {
        assert!(now().since(began) < WITHIN, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn claimed_by_a(epoch: u64) -> String {
    let name = NodeName::new("a").expect("a plain name");
    serde_json::to_string(&EpochRecord::new(Epoch(epoch), name)).expect("plain data")
}

#[tokio::test]
async fn a_leader_that_is_held_takes_its_key_again_unless_somebody_claimed() {
    for claimed in [false, true] {
        let mut world = World::new();
        world.until(|_| true).await;
        let session = world.tenure.session().expect("a session");
        let leader = world.keys.leader();
        let claim = Txn::new()
            .put_leased(&*leader, "a", session.lease)
            .put(world.keys.epoch(), claimed_by_a(1));
        let sent = now();
        let committed = world.store.commit(claim).await.expect("a store");
        assert!(committed.is_committed());
        let (tenure, epoch) = (Arc::clone(&world.tenure), Epoch(1));
        tenure.take_office(epoch, false, session, sent);
        tenure.held(epoch, now(), Duration::from_secs(60), &*world.orders);
        // The lease ends where nobody hears of it.
        let txn = match claimed {
            true => Txn::new().put(world.keys.epoch(), claimed_by_a(2)),
            false => Txn::new(),
        };
        world.store.commit(txn).await.expect("a store");
        world.store.revoke(session.lease).await.expect("a store");
        if claimed {
            until_true("the office is over", || tenure.office().is_none()).await;
        } else {
            let again = |office: Office| office.session != session;
            until_true("the key is taken again", || {
                tenure.office().is_some_and(again)
            })
            .await;
            let read = world.store.read(&leader).await.expect("a store");
            assert_eq!(read.value(&leader), Some("a"));
            let created = read.entries.get(&leader).map(|it| it.created);
            let all = world
                .store
                .read(world.keys.prefix())
                .await
                .expect("a store");
            let epoch_key = all.entries.get(&world.keys.epoch());
            assert_eq!(
                epoch_key.map(|it| it.modified),
                created,
                "no key of Patroni's"
            );
            assert_eq!(tenure.office().map(|office| office.epoch), Some(epoch));
        }
    }
}

#[tokio::test]
async fn a_standby_leaders_beats_are_taken() {
    let mut world = World::new();
    world.until(|_| true).await;
    let session = world.tenure.session().expect("a session");
    let record = EpochRecord {
        standby: true,
        ..serde_json::from_str(&claimed_by_a(1)).expect("a record")
    };
    let record = serde_json::to_string(&record).expect("plain values");
    let claim = Txn::new()
        .put_leased(world.keys.leader(), "a", session.lease)
        .put(world.keys.epoch(), record);
    let sent = now();
    let committed = world.store.commit(claim).await.expect("a store");
    assert!(committed.is_committed());
    world.tenure.take_office(Epoch(1), true, session, sent);
    let status = world.keys.status();
    let view = world.view.clone();
    until_true("a beat is written", || {
        view.borrow().entries.contains_key(&status)
    })
    .await;
    assert!(world.tenure.office().is_some());
}

#[tokio::test]
async fn a_shorter_time_to_live_takes_the_leadership_along_even_one_that_was_just_claimed() {
    let mut world = World::new();
    world.until(|_| true).await;
    let first = world.tenure.session().expect("a session");
    let short = Duration::from_secs(1);
    world.said.send_modify(|said| said.settings.ttl = short);
    let tenure = Arc::clone(&world.tenure);
    until_true("a new lease", || {
        tenure.session().is_some_and(|session| session.ttl == short)
    })
    .await;

    // The claim went out before that, on the first lease.
    let leader = world.keys.leader();
    let claim = Txn::new()
        .renew(first.lease)
        .put_leased(&*leader, "a", first.lease)
        .put(world.keys.epoch(), claimed_by_a(1));
    let sent = now();
    let committed = world.store.commit(claim).await.expect("a store");
    assert!(committed.is_committed());
    let long = world.tenure.take_office(Epoch(1), false, first, sent);
    let second = tenure.session().expect("a session");
    until_true("the leadership moves", || {
        tenure
            .office()
            .is_some_and(|office| office.session == second)
    })
    .await;

    world.store.revoke(first.lease).await.expect("a store");
    let snapshot = world.view.borrow().clone();
    assert!(
        snapshot.entries.contains_key(&leader),
        "it hangs on the new lease"
    );
    let orders = world.orders.0.lock().expect("no panic").clone();
    let (first_order, deadline) = orders[0];
    assert_eq!(first_order, "shorten", "{orders:?}");
    assert!(deadline < long.deadline, "{orders:?}");
}
