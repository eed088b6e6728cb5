//! From the store's keys to the view that decisions are made on.

use super::records::{
    EpochRecord, FailoverRecord, LineageRecord, MemberRecord, NodeEntry, PromiseRecord,
    StatusRecord, SyncValue,
};
use super::{ConfigRecord, Keys, foreign};
use crate::Snapshot;
use ha::quorum::SyncRecord;
use ha::{
    Cluster, Initialize, Leadership, Lineage, Lsn, Member, NodeName, Promise, Published, Settings,
    Switchover, SystemId,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A value that can't be read. Deciding on less than everything would be unsafe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("store key {key} can't be read: {why}")]
pub struct Unreadable {
    pub key: String,
    pub why: String,
}

/// The typed content of a cluster's keys, read once.
///
/// # Errors
/// The first record that can't be read, members aside: an unreadable one is a member that is not there.
pub fn read_cluster(keys: &Keys, snapshot: &Snapshot) -> Result<Cluster, Unreadable> {
    Reader::default()
        .read(keys, snapshot)
        .map(|read| read.cluster)
}

/// Reads again and again, and knows what was readable last.
///
/// One value that a person or a foreign program has spoilt must not stop every node. **Invariant:** what is passed over
/// permits nothing: a member is taken for dead, and settings and the leader's position stay what they were. Whatever
/// says who leads, which commits count and whose WAL it is must be readable, each record of it.
#[derive(Debug, Default)]
pub struct Reader {
    settings: Option<Settings>,
    leader_position: Option<Lsn>,
}

/// What was read.
#[derive(Debug)]
pub struct Reading {
    pub cluster: Cluster,
    /// Records that could not be read and were done without.
    pub passed_over: Vec<Unreadable>,
}

impl Reader {
    /// The settings as they were readable last.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// # Errors
    /// The first record that can't be read and can't be done without.
    pub fn read(&mut self, keys: &Keys, snapshot: &Snapshot) -> Result<Reading, Unreadable> {
        let mut passed_over = Vec::new();
        let (members, bad) = members(keys, snapshot);
        passed_over.extend(bad);
        let mut or_last = |bad: Unreadable, last: bool| {
            if !last {
                return Err(bad);
            }
            passed_over.push(bad);
            Ok(())
        };
        match settings(keys, snapshot) {
            Ok(settings) => self.settings = Some(settings),
            Err(bad) => or_last(bad, self.settings.is_some())?,
        }
        match parse::<StatusRecord>(snapshot, &keys.status()) {
            Ok(status) => self.leader_position = Some(status.unwrap_or_default().optime),
            Err(bad) => or_last(bad, self.leader_position.is_some())?,
        }
        let cluster = Cluster {
            members,
            settings: self.settings.clone().unwrap_or_default(),
            leader_position: self.leader_position.unwrap_or_default(),
            ..strictly(keys, snapshot)?
        };
        Ok(Reading {
            cluster,
            passed_over,
        })
    }
}

/// What must be readable.
fn strictly(keys: &Keys, snapshot: &Snapshot) -> Result<Cluster, Unreadable> {
    let text = |key: String| snapshot.value(&key).map(|value| (key, value));
    let initialize = match text(keys.initialize()) {
        None => Initialize::Absent,
        Some((_, "")) => Initialize::Founding,
        Some((key, digits)) => {
            let number = digits.parse().map_err(|_| Unreadable {
                key,
                why: format!("{digits:?} is no system identifier"),
            })?;
            Initialize::Done(SystemId(number))
        }
    };
    let leader = text(keys.leader())
        .map(|(key, name)| node_name(&key, name))
        .transpose()?;
    let epoch = parse::<EpochRecord>(snapshot, &keys.epoch())?;
    let sync = parse::<SyncValue>(snapshot, &keys.sync())?;
    let foreign = foreign::traces(
        keys,
        snapshot,
        leader.as_ref(),
        epoch.as_ref(),
        sync.as_ref(),
    );
    let epoch = epoch.map(|record| Leadership {
        epoch: record.epoch,
        leader: record.leader,
        standby: record.standby,
    });
    let sync = sync
        .map(|value| sync_record(keys, value))
        .transpose()?
        .flatten();
    let lineage = match parse::<LineageRecord>(snapshot, &keys.lineage())? {
        Some(record) => Some(Published {
            epoch: record.epoch,
            leader: record.leader,
            lineage: Lineage::from_branches(record.branches).ok_or_else(|| Unreadable {
                key: keys.lineage(),
                why: "its branches do not rise".to_owned(),
            })?,
        }),
        None => None,
    };
    let failover = snapshot.value(&keys.failover());
    let switchover = failover
        .and_then(FailoverRecord::read)
        .filter(|order| order.scheduled_at.is_none())
        .filter(|order| order.leader.is_some() || order.member.is_some())
        .map(|order| Switchover {
            from: order.leader,
            to: order.member,
            accept_loss: order.accept_loss,
        });
    Ok(Cluster {
        initialize,
        epoch,
        leader,
        sync,
        lineage,
        nodes: under::<NodeEntry>(snapshot, &keys.nodes())?
            .into_iter()
            .filter(|(_, entry)| !entry.witness)
            .map(|(name, entry)| (name, (&entry).into()))
            .collect(),
        promises: under::<PromiseRecord>(snapshot, &keys.promises())?
            .into_iter()
            .map(|(name, record)| (name, Promise::from(record)))
            .collect(),
        switchover,
        failsafe: failsafe(keys, snapshot)?,
        foreign,
        ..Cluster::default()
    })
}

/// Names that no node can have are nobody who might lead.
fn failsafe(
    keys: &Keys,
    snapshot: &Snapshot,
) -> Result<Option<BTreeMap<NodeName, String>>, Unreadable> {
    let listed = parse::<BTreeMap<String, String>>(snapshot, &keys.failsafe())?;
    let named = |(name, url)| Some((NodeName::new(name).ok()?, url));
    Ok(listed.map(|listed| listed.into_iter().filter_map(named).collect()))
}

/// Of `sync`, whoever wrote it.
fn sync_record(keys: &Keys, value: SyncValue) -> Result<Option<SyncRecord>, Unreadable> {
    let unreadable = |why: String| Unreadable {
        key: keys.sync(),
        why,
    };
    let Some(ours) = value.standfast else {
        let theirs = value.of_patroni();
        return theirs.map_err(|bad| unreadable(bad.to_string()));
    };
    let record = SyncRecord::from_settings(ours.settings);
    record
        .ok_or_else(|| unreadable("it holds no setting".to_owned()))
        .map(Some)
}

/// The members that can be read, and what can't.
fn members(keys: &Keys, snapshot: &Snapshot) -> (BTreeMap<NodeName, Member>, Vec<Unreadable>) {
    let (mut members, mut unreadable) = (BTreeMap::new(), Vec::new());
    for read in each::<MemberRecord>(snapshot, &keys.members()) {
        match read {
            Ok((name, record)) => drop(members.insert(name, member(record))),
            Err(bad) => unreadable.push(bad),
        }
    }
    (members, unreadable)
}

fn settings(keys: &Keys, snapshot: &Snapshot) -> Result<Settings, Unreadable> {
    let config = parse::<ConfigRecord>(snapshot, &keys.config())?.unwrap_or_default();
    config.settings().map_err(|bad| Unreadable {
        key: keys.config(),
        why: bad.to_string(),
    })
}

fn member(record: MemberRecord) -> Member {
    let Some(extra) = record.standfast else {
        return foreign::member(record);
    };
    Member {
        host: extra.host,
        port: extra.port,
        api_url: record.api_url,
        state: extra.state,
        position: record.xlog_location,
        timeline: record.timeline,
        unfit: extra.unfit,
        ties: extra.ties,
    }
}

fn node_name(key: &str, text: &str) -> Result<NodeName, Unreadable> {
    NodeName::new(text).map_err(|bad| Unreadable {
        key: key.to_owned(),
        why: bad.to_string(),
    })
}

pub(super) fn parse<T: DeserializeOwned>(
    snapshot: &Snapshot,
    key: &str,
) -> Result<Option<T>, Unreadable> {
    let Some(text) = snapshot.value(key) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Unreadable {
            key: key.to_owned(),
            why: error.to_string(),
        })
}

fn under<T: DeserializeOwned>(
    snapshot: &Snapshot,
    prefix: &str,
) -> Result<BTreeMap<NodeName, T>, Unreadable> {
    each(snapshot, prefix).collect()
}

/// Each record under a prefix, by name.
pub(super) fn each<T: DeserializeOwned>(
    snapshot: &Snapshot,
    prefix: &str,
) -> impl Iterator<Item = Result<(NodeName, T), Unreadable>> {
    let under = snapshot.entries.range(prefix.to_owned()..);
    under.map_while(move |(key, entry)| {
        let rest = key.strip_prefix(prefix)?;
        let value = serde_json::from_str(&entry.value).map_err(|error| Unreadable {
            key: key.clone(),
            why: error.to_string(),
        });
        Some(value.and_then(|value| Ok((node_name(key, rest)?, value))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use ha::quorum::Setting;
    use ha::{Foreign, Timeline};

    fn keys() -> Keys {
        Keys::new("service", "test")
    }

    fn snapshot(entries: &[(String, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (key, value) in entries {
            put(&mut snapshot, key, value, 1, 1);
        }
        snapshot
    }

    fn put(snapshot: &mut Snapshot, key: &str, value: &str, created: u64, modified: u64) {
        let entry = Entry {
            value: value.to_owned(),
            created,
            modified,
            lease: None,
        };
        snapshot.entries.insert(key.to_owned(), entry.into());
    }

    #[test]
    fn a_leader_key_that_is_younger_than_the_epoch_is_patronis() {
        let led = |epoch: Option<(&str, u64)>, created| {
            let mut snapshot = Snapshot::default();
            put(&mut snapshot, &keys().leader(), "a", created, 9);
            if let Some((record, modified)) = epoch {
                put(&mut snapshot, &keys().epoch(), record, 1, modified);
            }
            let foreign = read_cluster(&keys(), &snapshot).expect("readable").foreign;
            (foreign.leads, foreign.recorded)
        };
        let ours = r#"{"epoch":5,"leader":"a"}"#;
        let another = r#"{"epoch":5,"leader":"b"}"#;
        let theirs = r#"{"epoch":5,"leader":"a","patroni":true}"#;
        assert_eq!(led(None, 3), (true, false));
        assert_eq!(led(Some((ours, 3)), 3), (false, false), "claimed at once");
        assert_eq!(
            led(Some((ours, 7)), 3),
            (false, false),
            "of one that was silent"
        );
        assert_eq!(
            led(Some((ours, 3)), 4),
            (true, false),
            "the name is no proof"
        );
        assert_eq!(led(Some((another, 7)), 3), (true, false));
        assert_eq!(led(Some((theirs, 7)), 3), (true, true));
        assert_eq!(led(Some((theirs, 7)), 8), (true, false), "taken anew since");
        // Its agent has found its own name in the key.
        let a = keys().member(&NodeName::new("a").expect("a plain name"));
        let member =
            r#"{"conn_url":"","api_url":"","state":"running","role":"primary","version":"4"}"#;
        let mut taken = snapshot(&[(keys().leader(), "a"), (keys().epoch(), ours), (a, member)]);
        let foreign = read_cluster(&keys(), &taken).expect("readable").foreign;
        assert_eq!((foreign.leads, foreign.recorded), (true, false));
        taken.entries.remove(&keys().leader());
        let foreign = read_cluster(&keys(), &taken).expect("readable").foreign;
        assert!(!foreign.leads);
        let vacant = snapshot(&[(keys().epoch(), theirs)]);
        let foreign = read_cluster(&keys(), &vacant).expect("readable").foreign;
        assert_eq!((foreign.leads, foreign.recorded), (false, true));
    }

    #[test]
    fn a_spoilt_member_is_one_that_is_not_there() {
        let a = NodeName::new("a").expect("a plain name");
        let record =
            r#"{"conn_url":"","api_url":"","state":"running","role":"primary","version":"1"}"#;
        let spoilt = format!("{}b", keys().members());
        let snapshot = snapshot(&[(keys().member(&a), record), (spoilt.clone(), "{")]);
        let read = Reader::default()
            .read(&keys(), &snapshot)
            .expect("readable");
        assert_eq!(read.cluster.members.into_keys().collect::<Vec<_>>(), [a]);
        assert_eq!(read.passed_over[0].key, spoilt);
    }

    #[test]
    fn spoilt_settings_stay_what_they_were() {
        let mut reader = Reader::default();
        let good = [
            (keys().config(), r#"{"ttl":7}"#),
            (keys().status(), r#"{"optime":7000}"#),
        ];
        let bad = [
            (keys().config(), r#"{"ttl":0.1}"#),
            (keys().status(), "7000."),
        ];
        let first = reader.read(&keys(), &snapshot(&bad));
        assert_eq!(first.expect_err("never readable").key, keys().config());
        let read = reader.read(&keys(), &snapshot(&good)).expect("readable");
        let again = reader.read(&keys(), &snapshot(&bad)).expect("readable");
        assert_eq!(read.cluster, again.cluster);
        assert_eq!(again.passed_over.len(), 2);
        // A key that is gone is no spoilt key.
        let gone = reader.read(&keys(), &snapshot(&[])).expect("readable");
        assert_eq!(gone.cluster.settings, Settings::default());
    }

    #[test]
    fn nothing_else_may_be_spoilt() {
        let mut reader = Reader::default();
        reader.read(&keys(), &snapshot(&[])).expect("readable");
        for key in [
            keys().initialize(),
            keys().leader(),
            keys().epoch(),
            keys().sync(),
            keys().lineage(),
            format!("{}a", keys().nodes()),
            format!("{}a", keys().promises()),
        ] {
            let read = reader.read(&keys(), &snapshot(&[(key.clone(), "{ ,")]));
            assert_eq!(read.expect_err("spoilt").key, key);
        }
    }

    /// An order is a wish: one that nobody can read is none.
    #[test]
    fn an_order_may_have_any_form() {
        let read = |text: &str| {
            let read = read_cluster(&keys(), &snapshot(&[(keys().failover(), text)]));
            let order = read.expect("readable").switchover?;
            Some([order.from, order.to].map(|it| it.map(|it| it.to_string()).unwrap_or_default()))
        };
        let both = Some(["n1".to_owned(), "n2".to_owned()]);
        assert_eq!(read(r#"{"leader":"n1","member":"n2"}"#), both);
        assert_eq!(read("n1:n2"), both, "as Patroni's first releases wrote it");
        assert_eq!(read(" n1 : n2 "), both);
        assert_eq!(read("n1"), Some(["n1".to_owned(), String::new()]));
        assert_eq!(read(":n2"), Some([String::new(), "n2".to_owned()]));
        for none in [
            "",
            "{}",
            "{ ,",
            ":",
            "[]",
            "7",
            "a b",
            r#"{"member":"a b"}"#,
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn what_patroni_writes_is_readable_and_known_as_its_own() {
        let n1 = NodeName::new("n1").expect("a plain name");
        let record = r#"{"conn_url":"postgres://127.0.0.1:5432/postgres",
            "api_url":"http://127.0.0.1:8008/patroni","state":"running","role":"primary",
            "version":"4.1.5","xlog_location":67108960,"timeline":2,"pause":true}"#;
        let snapshot = snapshot(&[
            (keys().member(&n1), record),
            (
                keys().sync(),
                r#"{"leader":"n1","quorum":0,"sync_standby":null}"#,
            ),
            (keys().history(), r#"[[1,100,"why","then","n1"]]"#),
            (
                keys().status(),
                r#"{"optime":67108960,"slots":{"n1":1},"retain_slots":["n1"]}"#,
            ),
            (keys().failover(), "{}"),
        ]);
        let cluster = read_cluster(&keys(), &snapshot).expect("readable");
        assert_eq!(
            cluster.foreign,
            Foreign {
                members: [n1.clone()].into(),
                sync: true,
                ended: Some(Timeline(1)),
                ..Foreign::default()
            }
        );
        let alone = SyncRecord::of(Setting::alone(n1.clone()));
        assert_eq!(cluster.sync, Some(alone));
        let member = &cluster.members[&n1];
        assert_eq!((member.host.as_str(), member.port), ("127.0.0.1", 5432));
    }
}
