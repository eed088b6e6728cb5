//! What the keeper writes, on a store in memory.

use super::*;
use ha::NodeState;
use std::collections::BTreeSet;
use store::layout::{MemberExtra, MemberRecord};
use store::{MemoryStore, View};
use tokio::task::JoinHandle;

const WITHIN: Duration = Duration::from_secs(10);

struct World {
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

fn record(position: Lsn) -> MemberRecord {
    MemberRecord {
        conn_url: "postgres://127.0.0.1:5432/postgres".to_owned(),
        api_url: "http://127.0.0.1:8008/patroni".to_owned(),
        state: "running".to_owned(),
        role: "replica".to_owned(),
        version: "0.1.0".to_owned(),
        xlog_location: position,
        timeline: ha::Timeline(1),
        replication_state: None,
        tags: None,
        standfast: Some(MemberExtra {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            state: NodeState::Standby,
            assigned: NodeState::Standby,
            reason: "a standby".to_owned(),
            rule: "standby".to_owned(),
            unfit: None,
            stream_says: None,
            identity: "a".to_owned(),
            server_version: 150_018,
        }),
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
            optime: Lsn::ZERO,
            settings,
        });
        let key = keys.member(&me);
        let view = store.view(keys.prefix());
        let keeper = Keeper {
            store,
            keys,
            me,
            tenure: Arc::default(),
            said: heard,
            arm: Arc::new(|_, _| {}),
            wake: Arc::default(),
        };
        Self {
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
