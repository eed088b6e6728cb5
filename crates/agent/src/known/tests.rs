use super::*;
use ha::SyncMode;
use store::layout::Reader;
use store::{Entry, Guard};

/// When `initialize` was made in these stores.
const SINCE: Revision = 3;

fn keys() -> Keys {
    Keys::new("service", "shop")
}

fn holding(entries: &[(String, &str)]) -> Arc<Snapshot> {
    let entry = |value: &str| Entry {
        value: value.to_owned(),
        created: SINCE,
        modified: SINCE,
        lease: None,
    };
    let entries = entries.iter();
    Arc::new(Snapshot {
        revision: SINCE,
        entries: entries
            .map(|(key, it)| (key.clone(), Arc::new(entry(it))))
            .collect(),
    })
}

fn read(system: u64, modified: Revision, config: &str) -> LastConfig {
    LastConfig {
        system: SystemId(system),
        since: SINCE,
        modified,
        config: config.to_owned(),
    }
}

#[test]
fn what_is_gone_stays_in_force_and_absent() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"{"synchronous_mode":"on","ttl":7}"#;
    let nowhere = dir.path().join("nowhere");
    let before = Known::open(dir.path(), &nowhere);
    let initialize = || (keys().initialize(), "7");
    let take = |config: &str| {
        let held = holding(&[initialize(), (keys().config(), config)]);
        before.take(&keys(), &held, None)
    };
    assert!(take(text));
    assert!(!take(text), "known already");
    assert!(!take("{\"ttl\":0.1}") && !take("{"));
    before.write().unwrap();

    let known = Known::open(dir.path(), &nowhere);
    let gone = known.over(&keys(), &holding(&[initialize()]));
    let read = Reader::default().read(&keys(), &gone).unwrap();
    assert_eq!(read.cluster.settings.sync_mode, SyncMode::On);
    let key = keys().config();
    assert_eq!(gone.unchanged(&key), Guard::Absent { key });

    // What the store says counts; a cluster that is only being founded has none; nor has another one of this name.
    let there = [initialize(), (keys().config(), "{}")];
    let founding = [(keys().initialize(), "")];
    let another = [(keys().initialize(), "8")];
    for entries in [&there[..], &founding, &another, &[]] {
        let held = holding(entries);
        assert_eq!(*known.over(&keys(), &held), *held);
    }
}

/// Which of them a node takes, given what it and the other members remember.
fn chosen(mine: Option<LastConfig>, told: &[Option<LastConfig>]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let known = Known::open(dir.path(), dir.path());
    if let Some(mine) = mine {
        assert!(known.keep(mine, None));
    }
    let mut entries = vec![(keys().initialize(), "7".to_owned())];
    for (n, remembers) in told.iter().enumerate() {
        let name = ha::NodeName::new(format!("n{n}")).unwrap();
        let mut member = crate::keeper::tests::record(ha::Lsn(7));
        if let Some(ours) = &mut member.standfast {
            ours.remembers.clone_from(remembers);
        }
        entries.push((
            keys().member(&name),
            serde_json::to_string(&member).unwrap(),
        ));
    }
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, it)| (key.clone(), it.as_str()))
        .collect();
    let held = holding(&entries);
    assert_eq!(
        all_have_told(&keys(), &held),
        told.iter().all(Option::is_some)
    );
    let over = known.over(&keys(), &held);
    over.value(&keys().config()).map(str::to_owned)
}

#[test]
fn the_newest_that_a_member_knows_counts() {
    let (old, new) = (r#"{"ttl":7}"#, r#"{"ttl":8}"#);
    let is = |wanted: &str, chosen: Option<String>| assert_eq!(chosen.as_deref(), Some(wanted));
    is(new, chosen(Some(read(7, 5, old)), &[Some(read(7, 9, new))]));
    is(
        new,
        chosen(Some(read(7, 9, new)), &[Some(read(7, 5, old)), None]),
    );
    is(new, chosen(None, &[None, Some(read(7, 9, new))]));

    // Revisions of a store that is no more say nothing.
    let before = LastConfig {
        since: 2,
        ..read(7, 99, old)
    };
    is(new, chosen(Some(before.clone()), &[Some(read(7, 5, new))]));
    is(old, chosen(Some(before), &[]));

    // Nor does what another cluster of this name had, or what can't be understood.
    let foreign = || Some(read(8, 99, old));
    assert_eq!(
        chosen(foreign(), &[foreign(), Some(read(7, 99, "{"))]),
        None
    );
}

#[test]
fn only_the_clusters_own_data_directory_gets_a_copy() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(data.path().join("PG_VERSION"), "15").unwrap();
    let known = Known::open(state.path(), data.path());
    let held = holding(&[(keys().initialize(), "7"), (keys().config(), "{}")]);
    for (data_of, copied) in [(None, false), (Some(8), false), (Some(7), true)] {
        known.take(&keys(), &held, data_of.map(SystemId));
        known.write().unwrap();
        assert_eq!(data.path().join(COPY).exists(), copied, "{data_of:?}");
    }
    assert!(!known.take(&keys(), &held, Some(SystemId(7))));
}

#[test]
fn a_directory_of_patronis_says_what_was_in_force() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || Known::open(state.path(), data.path());
    let theirs = data.path().join(COPY);
    std::fs::write(data.path().join("PG_VERSION"), "15").unwrap();
    let of = |was_patronis| {
        let system = SystemId(7);
        let settings = open().of_data(system, was_patronis)?.settings().unwrap();
        Some((settings.ttl.as_secs(), settings.sync_mode))
    };
    assert_eq!(of(true), None);
    std::fs::write(&theirs, "{").unwrap();
    assert_eq!(of(true), None);
    std::fs::write(&theirs, r#"{"ttl":20}"#).unwrap();
    assert_eq!(of(true), Some((20, SyncMode::Off)));
    std::fs::write(&theirs, r#"{"ttl":30,"synchronous_mode":true}"#).unwrap();
    assert_eq!(of(false), Some((20, SyncMode::Off)), "ours is the newer");
    // Which is what was taken over, in both places: they write it anew while they have the directory.
    std::fs::write(&theirs, r#"{"ttl":30,"synchronous_mode":true}"#).unwrap();
    assert_eq!(of(true), Some((30, SyncMode::On)), "it went back to them");
    assert_eq!(of(false), Some((30, SyncMode::On)));

    // The state directory was another cluster's, or is lost; the data is not.
    let known = open();
    assert!(known.keep(read(8, 5, r#"{"ttl":9}"#), None));
    known.write().unwrap();
    assert_eq!(of(false), Some((30, SyncMode::On)));
    std::fs::remove_file(state.path().join("config.json")).unwrap();
    assert_eq!(of(false), Some((30, SyncMode::On)));
}
