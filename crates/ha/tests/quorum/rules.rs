//! What the functions of `ha::quorum` promise by themselves, without a world around them.

use ha::quorum::{Applied, Missing, Setting, Step, SyncRecord, flushed_count, next_step};
use ha::{Epoch, Lsn, NodeName};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LEADERS: [&str; 3] = ["a", "b", "c"];

fn name(node: usize) -> NodeName {
    NodeName::new(["a", "b", "c", "d", "e", "f"][node]).expect("a letter is a node name")
}

fn names(mask: usize) -> BTreeSet<NodeName> {
    (0..6)
        .filter(|node| mask >> node & 1 == 1)
        .map(name)
        .collect()
}

/// Every setting of `a` with up to five standbys; bit n of a mask is node n.
fn settings(standbys: usize) -> Vec<(usize, usize, Setting)> {
    let sets = (0..1_usize << (standbys + 1)).filter(|set| set & 1 == 0);
    let settings = sets.flat_map(|set| {
        let most = set.count_ones() as usize;
        let counts = most.min(1)..=most;
        counts.map(move |needed| (set, needed, Setting::quorum(name(0), names(set), needed)))
    });
    settings.collect()
}

fn subsets(set: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..64).filter(move |part| part & !set == 0 && part.count_ones() as usize == size)
}

#[test]
fn a_promise_set_is_accepted_exactly_if_it_meets_all_that_can_have_acknowledged() {
    for (set, needed, setting) in settings(5) {
        for promised in 0..64 {
            let meets = subsets(set, needed).all(|acked| promised & (acked | 1) != 0);
            assert_eq!(
                setting.accepts(&names(promised)).is_ok(),
                meets,
                "{setting} {promised:b}"
            );
        }
    }
}

#[test]
fn as_many_promises_as_needed_suffice_and_one_fewer_does_not() {
    for (set, _, setting) in settings(5).into_iter().filter(|(_, needed, _)| *needed > 0) {
        let need = setting.promises_needed();
        assert!(subsets(set, need).all(|promised| setting.accepts(&names(promised)).is_ok()));
        assert!(subsets(set, need - 1).all(|promised| setting.accepts(&names(promised)).is_err()));
    }
}

#[test]
fn nobody_but_the_leader_may_follow_a_leader_that_was_alone() {
    let alone = Setting::alone(name(0));
    assert_eq!(
        alone.accepts(&names(0b11_1110)),
        Err(Missing::OnlyLeader { leader: name(0) })
    );
    assert_eq!(alone.accepts(&names(0b00_0001)), Ok(()));
    assert_eq!(Setting::quorum(name(0), BTreeSet::new(), 2), alone);
}

#[test]
fn a_settled_record_names_all_of_its_standbys_to_patroni() {
    for (set, needed, setting) in settings(5).into_iter().filter(|(_, needed, _)| *needed > 0) {
        let standbys = set.count_ones() as usize;
        let named = SyncRecord::of(setting).named_to_patroni();
        assert_eq!(named, (names(set), standbys - needed));
    }
}

#[test]
fn who_is_new_in_a_record_is_not_named_to_patroni_before_it_is_covered() {
    let one =
        |leader: usize, standby: usize| Setting::quorum(name(leader), names(1_usize << standby), 1);
    let record = SyncRecord::of(one(2, 0)).joined(one(0, 1));
    assert_eq!(record.named_to_patroni(), (names(0), 0));
    let back = SyncRecord::of(one(1, 0)).joined(one(0, 1));
    assert_eq!(
        back.named_to_patroni(),
        (names(0b10), 0),
        "it has led before"
    );
}

#[test]
fn a_quorum_needs_one_at_least_and_all_at_most() {
    assert_eq!(Setting::quorum(name(0), names(0b110), 0).needed, 1);
    assert_eq!(Setting::quorum(name(0), names(0b110), 9).needed, 2);
}

#[test]
fn a_missing_promise_is_told_with_numbers() {
    let setting = Setting::quorum(name(0), names(0b1110), 1);
    let missing = setting.accepts(&names(0b0010)).expect_err("one of three");
    let told = "1 of 3 promises needed of the synchronous standbys of a; absent: c, d, or a itself";
    assert_eq!(missing.to_string(), told);
}

/// While a leader's setting changes, each walsender holds its own standby for synchronous or not, by the setting that
/// it has read, and counts up to the number of that setting.
#[test]
fn a_record_in_change_accepts_exactly_what_meets_every_mix_of_its_two_settings() {
    let settings = settings(4);
    for (old_set, old_needed, old) in &settings {
        for (new_set, new_needed, new) in &settings {
            let record = SyncRecord::of(old.clone()).joined(new.clone());
            let mut acked: BTreeSet<usize> = subsets(*old_set, *old_needed).collect();
            acked.extend(subsets(*new_set, *new_needed));
            for switched in (0..32).filter(|switched| switched & 1 == 0) {
                let held = new_set & switched | old_set & !switched;
                if held & switched != 0 {
                    acked.extend(subsets(held, *new_needed));
                }
                if held & !switched != 0 {
                    acked.extend(subsets(held, *old_needed));
                }
            }
            for promised in 0..32 {
                let meets = acked.iter().all(|acked| promised & (acked | 1) != 0);
                let accepts = record.accepts(&names(promised)).is_ok();
                assert_eq!(accepts, meets, "{old} + {new}, promised: {promised:b}");
            }
        }
    }
}

fn any_setting() -> impl Strategy<Value = Setting> {
    (0..LEADERS.len(), 0..64_usize, 0..6_usize).prop_map(|(leader, set, needed)| {
        Setting::quorum(name(leader), names(set & !(1 << leader)), needed)
    })
}

fn any_record() -> impl Strategy<Value = SyncRecord> {
    proptest::collection::vec(any_setting(), 1..5).prop_map(|settings| {
        let record = SyncRecord::of(settings[0].clone());
        settings
            .into_iter()
            .fold(record, |record, setting| record.joined(setting))
    })
}

proptest! {
    #[test]
    fn a_joined_record_ends_with_the_new_setting_and_holds_all_others_once(
        record in any_record(), setting in any_setting(),
    ) {
        let joined = record.joined(setting.clone());
        prop_assert_eq!(joined.newest(), &setting);
        let before: BTreeSet<_> = record.settings().iter().chain([&setting]).collect();
        let after: BTreeSet<_> = joined.settings().iter().collect();
        prop_assert_eq!(after, before);
        let distinct: BTreeSet<_> = joined.settings().iter().collect();
        prop_assert_eq!(distinct.len(), joined.settings().len());
        prop_assert_eq!(&joined.joined(setting), &joined);
    }

    #[test]
    fn a_joined_record_accepts_no_more_than_the_record_and_the_setting_do(
        record in any_record(), setting in any_setting(), promised in 0..64_usize,
    ) {
        if record.joined(setting.clone()).accepts(&names(promised)).is_ok() {
            prop_assert_eq!(record.accepts(&names(promised)), Ok(()));
            prop_assert_eq!(setting.accepts(&names(promised)), Ok(()));
        }
    }

    /// Patroni's agents let each name lead where no quorum goes with them, and else whom `quorum` others agree with.
    #[test]
    fn patroni_reads_nobody_whom_the_record_would_not_accept(record in any_record(), voters in 0..64_usize) {
        let (named, quorum) = record.named_to_patroni();
        let voters: BTreeSet<_> = named.intersection(&names(voters)).cloned().collect();
        if voters.len() > quorum {
            prop_assert!(record.accepts(&voters).is_ok(), "{record:?} {voters:?}");
        }
    }

    #[test]
    fn one_more_promise_never_hurts(
        record in any_record(), promised in 0..64_usize, more in 0..64_usize,
    ) {
        if record.accepts(&names(promised)).is_ok() {
            prop_assert_eq!(record.accepts(&names(promised | more)), Ok(()));
        }
    }

    #[test]
    fn what_is_missing_is_told_by_the_numbers(record in any_record(), promised in 0..64_usize) {
        if let Err(Missing::Promises { have, need, absent, .. }) = record.accepts(&names(promised)) {
            prop_assert!(have < need && need - have <= absent.len());
            prop_assert!(absent.iter().all(|name| !names(promised).contains(name)));
        }
    }

    /// However many settings the record holds, even those of leaders that are gone.
    #[test]
    fn every_change_ends_once_the_standbys_have_flushed(record in any_record(), wanted in any_setting()) {
        let mut record = record;
        let mut applied = None;
        let flushed: BTreeMap<NodeName, Lsn> =
            wanted.standbys.iter().map(|name| (name.clone(), Lsn(7))).collect();
        let mut steps = 0;
        loop {
            match next_step(&record, &wanted, applied.as_ref(), &flushed) {
                Step::Record(next) => record = next,
                Step::Apply(of) => {
                    applied = Some(Applied { epoch: Epoch(1), record: of, barrier: Lsn(7) });
                }
                Step::Await { .. } => prop_assert!(false, "the barrier is passed"),
                Step::Settled => break,
            }
            steps += 1;
            prop_assert!(steps <= 3, "record, apply, record");
        }
        prop_assert_eq!(record, SyncRecord::of(wanted));
    }

    #[test]
    fn nothing_moves_on_before_enough_standbys_have_flushed_the_barrier(
        wanted in any_setting(), old in any_setting(),
        positions in proptest::collection::vec(0..10_u64, 6), barrier in 0..10_u64,
    ) {
        let record = SyncRecord::of(old).joined(wanted.clone());
        prop_assume!(!record.is_settled());
        let applied = Applied { epoch: Epoch(1), record: record.clone(), barrier: Lsn(barrier) };
        let flushed: BTreeMap<NodeName, Lsn> =
            positions.iter().enumerate().map(|(node, lsn)| (name(node), Lsn(*lsn))).collect();
        let have = flushed_count(&wanted, Lsn(barrier), &flushed);
        let expected = if have >= wanted.needed {
            Step::Record(SyncRecord::of(wanted.clone()))
        } else {
            Step::Await { setting: wanted.clone(), barrier: Lsn(barrier), have }
        };
        prop_assert_eq!(next_step(&record, &wanted, Some(&applied), &flushed), expected);
    }
}
