//! One leader changes its setting once; its agent restarts, and the leader dies, at any point.

use crate::model::{Bounds, Break, Counting, Pair, Rules, Sum, Verdict, World, explore, pairs};
use expect_test::expect;

/// Every change between two settings of a leader with `standbys` standbys.
pub(crate) fn every_change(rules: Rules, standbys: usize) -> Sum {
    let mut sum = Sum::default();
    for pair in pairs(standbys) {
        sum.add(pair.weight, change(rules, standbys, &pair));
    }
    sum
}

fn change(rules: Rules, standbys: usize, pair: &Pair) -> Verdict {
    let bounds = Bounds {
        nodes: standbys + 1,
        reigns: 1,
        commits: [2, 0, 0],
        changes: [0; 3],
    };
    let mut world = World::new(rules, bounds, vec![pair.from, pair.to]);
    let start = world.start(1);
    explore(&mut world, start)
}

#[test]
fn no_change_between_settings_of_up_to_three_standbys_loses_a_commit() {
    let sum = every_change(Rules::OURS, 3);
    sum.assert_safe();
    expect!["156 changes, 57884 states"]
        .assert_eq(&format!("{} changes, {} states", sum.worlds, sum.states));
}

/// Patroni: Failover | `synchronous_mode: on`, `quorum`, `synchronous_node_count` | work; every change of the setting
///   is proven against every way in which walsenders can read it
#[test]
fn no_change_between_settings_of_up_to_four_standbys_loses_a_commit() {
    let sum = every_change(Rules::OURS, 4);
    sum.assert_safe();
    expect!["1056 changes, 529135 states"]
        .assert_eq(&format!("{} changes, {} states", sum.worlds, sum.states));
}

#[test]
fn each_setting_asked_by_itself_would_do_if_a_walsender_counted_by_its_own_setting_alone() {
    let rules = Rules {
        counting: Counting::AsRead,
        ..Rules::but(Break::EachSettingByItself)
    };
    every_change(rules, 3).assert_safe();
}

#[test]
fn each_setting_asked_by_itself_loses_commits_that_walsenders_count_by_a_mix_of_settings() {
    let sum = every_change(Rules::but(Break::EachSettingByItself), 3);
    assert_eq!((sum.lossy, sum.worlds), (66, 156));
    expect![[r#"
        record: a with 1 of (b); wanted: a with 2 of (c, d)
        a writes 1
        c flushes 1
        record: a with 1 of (b) + a with 2 of (c, d)
        a's file says: a with 2 of (c, d)
        a's walsender of c reads: a with 2 of (c, d); a acknowledges up to 1
        => the promises of b, d are accepted; b may claim with 0 and lose 1 of epoch 1
    "#]]
    .assert_eq(&sum.trace);
}

#[test]
fn a_record_that_moves_on_before_the_barrier_loses_commits() {
    let sum = every_change(Rules::but(Break::BarrierNotAwaited), 3);
    assert_eq!((sum.lossy, sum.worlds), (120, 156));
    expect![[r#"
        record: a with 1 of (b); wanted: a with 1 of (c)
        a writes 1
        b flushes 1; a acknowledges up to 1
        record: a with 1 of (b) + a with 1 of (c)
        a's file says: a with 1 of (c)
        the checkpointer of a reads: a with 1 of (c)
        a's walsender of b reads: a with 1 of (c)
        a's walsender of c reads: a with 1 of (c)
        a's walsender of d reads: a with 1 of (c)
        the barrier is 1
        record: a with 1 of (c)
        => the promises of c, d are accepted; c may claim with 0 and lose 1 of epoch 1
    "#]]
    .assert_eq(&sum.trace);
}

/// As long as the checkpointer believes that there are no synchronous standbys, no commit waits.
#[test]
fn a_change_that_does_not_wait_for_the_checkpointer_loses_commits_when_the_leader_was_alone() {
    let sum = every_change(Rules::but(Break::CheckpointerOverlooked), 3);
    assert_eq!((sum.lossy, sum.worlds), (12, 156));
    expect![[r#"
        record: a alone; wanted: a with 1 of (b)
        record: a alone + a with 1 of (b)
        a's file says: a with 1 of (b)
        a's walsender of b reads: a with 1 of (b)
        a's walsender of c reads: a with 1 of (b)
        a's walsender of d reads: a with 1 of (b)
        the barrier is 0
        a writes 1; a acknowledges up to 1
        record: a with 1 of (b)
        => the promises of b, c, d are accepted; b may claim with 0 and lose 1 of epoch 1
    "#]]
    .assert_eq(&sum.trace);
}
