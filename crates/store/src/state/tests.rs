use super::*;

fn commit(state: &mut State, txn: Txn) -> Answer {
    state.apply(&Command::Commit(txn)).answer
}

fn committed(revision: Revision) -> Answer {
    Answer::Outcome(Outcome::Committed { revision })
}

fn granted(state: &mut State, id: i64) -> LeaseId {
    let lease = LeaseId(id);
    let ttl = Duration::from_secs(1);
    assert_eq!(
        state.apply(&Command::Grant { lease, ttl }).answer,
        Answer::Done
    );
    lease
}

fn leases_and_entries_agree(state: &State) {
    let by_entry: BTreeSet<(LeaseId, &String)> = state
        .entries
        .iter()
        .filter_map(|(key, entry)| entry.lease.map(|lease| (lease, key)))
        .collect();
    let by_lease: BTreeSet<(LeaseId, &String)> = state
        .leases
        .iter()
        .flat_map(|(id, lease)| lease.keys.iter().map(|key| (*id, key)))
        .collect();
    assert_eq!(by_entry, by_lease);
}

#[test]
fn revisions_rise_only_with_changes() {
    let mut state = State::default();
    assert_eq!(
        commit(&mut state, Txn::new().put("a", "1").put("b", "1")),
        committed(1)
    );
    assert_eq!(
        commit(&mut state, Txn::new().delete("missing")),
        committed(1)
    );
    assert_eq!(commit(&mut state, Txn::new()), committed(1));
    assert_eq!(commit(&mut state, Txn::new().put("a", "1")), committed(2));
    let all = state.snapshot("");
    assert_eq!(
        (all.entries["a"].created, all.entries["a"].modified),
        (1, 2)
    );
    assert_eq!(
        (all.entries["b"].created, all.entries["b"].modified),
        (1, 1)
    );
}

#[test]
fn a_key_put_again_after_deletion_is_a_new_key() {
    let mut state = State::default();
    commit(&mut state, Txn::new().put("a", "1"));
    let old = state.snapshot("").unchanged("a");
    commit(&mut state, Txn::new().delete("a"));
    commit(&mut state, Txn::new().put("a", "1"));
    assert_eq!(state.snapshot("").entries["a"].created, 3);
    let refused = Answer::Outcome(Outcome::Refused);
    assert_eq!(
        commit(&mut state, Txn::new().when(old).put("a", "2")),
        refused
    );
}

#[test]
fn one_failed_guard_keeps_everything_as_it_was() {
    let mut state = State::default();
    let lease = granted(&mut state, 7);
    commit(&mut state, Txn::new().put("a", "1"));
    let before = state.clone();
    let txn = Txn::new()
        .when(Guard::Present { key: "a".into() })
        .when(Guard::Equals {
            key: "a".into(),
            value: "2".into(),
        })
        .put("b", "1")
        .delete("a")
        .renew(lease);
    assert_eq!(commit(&mut state, txn), Answer::Outcome(Outcome::Refused));
    assert_eq!(state, before);
}

#[test]
fn an_ended_lease_in_a_transaction_changes_nothing() {
    let mut state = State::default();
    let gone = LeaseId(9);
    let txn = Txn::new().put("a", "1").put_leased("b", "1", gone);
    assert_eq!(commit(&mut state, txn), Answer::LeaseEnded(gone));
    let txn = Txn::new().put("a", "1").renew(gone);
    assert_eq!(commit(&mut state, txn), Answer::LeaseEnded(gone));
    assert_eq!(state, State::default());
}

#[test]
fn a_renewal_that_races_an_expiry_wins() {
    let mut state = State::default();
    let lease = granted(&mut state, 1);
    commit(&mut state, Txn::new().put_leased("a", "1", lease));
    state.apply(&Command::Renew(lease));
    assert_eq!(
        state.apply(&Command::Expire { lease, renewals: 0 }).answer,
        Answer::Renewed
    );
    assert!(state.snapshot("").value("a").is_some());
    assert_eq!(
        state.apply(&Command::Expire { lease, renewals: 1 }).answer,
        Answer::Done
    );
    assert!(state.snapshot("").value("a").is_none());
    assert_eq!(
        state.apply(&Command::Renew(lease)).answer,
        Answer::LeaseEnded(lease)
    );
}

#[test]
fn a_put_moves_a_key_to_its_lease_or_away_from_all() {
    let mut state = State::default();
    let (one, two) = (granted(&mut state, 1), granted(&mut state, 2));
    commit(
        &mut state,
        Txn::new()
            .put_leased("a", "1", one)
            .put_leased("b", "1", one),
    );
    commit(
        &mut state,
        Txn::new().put_leased("a", "2", two).put("b", "2"),
    );
    state.apply(&Command::Revoke(one));
    assert_eq!(state.snapshot("").entries.len(), 2);
    state.apply(&Command::Revoke(two));
    assert_eq!(state.snapshot("").entries.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_prefix_is_a_prefix() {
    let mut state = State::default();
    commit(
        &mut state,
        Txn::new()
            .put("/a", "")
            .put("/a/x", "")
            .put("/ab", "")
            .put("/b", ""),
    );
    assert_eq!(
        state.snapshot("/a/").entries.keys().collect::<Vec<_>>(),
        ["/a/x"]
    );
    assert_eq!(state.snapshot("/a").entries.len(), 3);
    assert_eq!(state.snapshot("").entries.len(), 4);
}

#[test]
fn a_state_survives_its_own_serialization() {
    let mut state = State::default();
    let lease = granted(&mut state, i64::MAX);
    commit(
        &mut state,
        Txn::new().put_leased("a", "\u{1f418}", lease).put("b", ""),
    );
    let text = serde_json::to_string(&state).expect("serializable");
    assert_eq!(
        serde_json::from_str::<State>(&text).expect("readable"),
        state
    );
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn command() -> impl Strategy<Value = Command> {
        let key = prop::sample::select(vec!["a", "b", "c"]);
        let lease = (1i64..4).prop_map(LeaseId);
        let op =
            (key, prop::option::of(lease.clone()), any::<bool>()).prop_map(|(key, lease, put)| {
                let key = key.to_owned();
                if put {
                    Op::Put {
                        key,
                        value: "v".into(),
                        lease,
                    }
                } else {
                    Op::Delete { key }
                }
            });
        prop_oneof![
            (
                prop::collection::vec(op, 0..4),
                prop::option::of(lease.clone())
            )
                .prop_map(|(ops, renew)| Command::Commit(Txn {
                    guards: vec![],
                    ops,
                    renew
                })),
            lease.clone().prop_map(|lease| Command::Grant {
                lease,
                ttl: Duration::from_secs(1)
            }),
            lease.clone().prop_map(Command::Renew),
            lease.clone().prop_map(Command::Revoke),
            (lease, 0u64..3).prop_map(|(lease, renewals)| Command::Expire { lease, renewals }),
        ]
    }

    proptest! {
        #[test]
        fn revisions_and_leases_stay_consistent(commands in prop::collection::vec(command(), 0..60)) {
            let mut state = State::default();
            for command in &commands {
                let before = state.snapshot("");
                let applied = state.apply(command);
                let after = state.snapshot("");
                let changed = !applied.touched.is_empty();
                prop_assert_eq!(after.revision, before.revision + u64::from(changed));
                prop_assert!(changed || after == before);
                leases_and_entries_agree(&state);
            }
        }
    }
}
