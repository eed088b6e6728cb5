//! Another setting is wanted while a change is under way: the way back, or a third one, at any step.

use crate::model::{Bounds, Break, Rules, Sum, World, explore, triples};
use expect_test::expect;

/// Every three settings of a leader with `standbys` standbys, among which it changes its mind `changes` times.
fn every_change_of_mind(rules: Rules, standbys: usize, commits: u8, changes: u8) -> Sum {
    let mut sum = Sum::default();
    for settings in triples(standbys) {
        let bounds = Bounds {
            nodes: standbys + 1,
            reigns: 1,
            commits: [commits, 0, 0],
            changes: [changes, 0, 0],
        };
        let mut world = World::new(rules, bounds, settings.to_vec());
        let start = world.start(0);
        sum.add(1, explore(&mut world, start));
    }
    sum
}

#[test]
fn three_changes_of_mind_among_settings_of_up_to_two_standbys_lose_nothing() {
    let sum = every_change_of_mind(Rules::OURS, 2, 1, 3);
    sum.assert_safe();
    expect!["18 triples, 224260 states"]
        .assert_eq(&format!("{} triples, {} states", sum.worlds, sum.states));
}

#[test]
fn two_changes_of_mind_among_settings_of_up_to_three_standbys_lose_nothing() {
    let sum = every_change_of_mind(Rules::OURS, 3, 1, 2);
    sum.assert_safe();
    expect!["243 triples, 2047838 states"]
        .assert_eq(&format!("{} triples, {} states", sum.worlds, sum.states));
}

#[test]
#[ignore = "about a minute"]
fn three_changes_of_mind_among_settings_of_up_to_three_standbys_lose_nothing() {
    let sum = every_change_of_mind(Rules::OURS, 3, 1, 3);
    sum.assert_safe();
    expect!["243 triples, 10242683 states"]
        .assert_eq(&format!("{} triples, {} states", sum.worlds, sum.states));
}

/// A record that went from A + B to B + A and back is the same record; what was proven for it is void.
#[test]
fn what_was_proven_must_be_forgotten_when_another_setting_is_being_applied() {
    let sum = every_change_of_mind(Rules::but(Break::AppliedKeptWhileApplying), 2, 1, 3);
    assert_eq!((sum.lossy, sum.worlds), (16, 18));
    expect![[r#"
        record: a with 1 of (b); wanted: a with 1 of (b)
        wanted: a with 2 of (b, c)
        record: a with 1 of (b) + a with 2 of (b, c)
        a's file says: a with 2 of (b, c)
        the checkpointer of a reads: a with 2 of (b, c)
        a's walsender of b reads: a with 2 of (b, c)
        a's walsender of c reads: a with 2 of (b, c)
        the barrier is 0
        a writes 1
        b flushes 1
        wanted: a with 1 of (b)
        record: a with 2 of (b, c) + a with 1 of (b)
        a's file says: a with 1 of (b)
        a's walsender of b reads: a with 1 of (b); a acknowledges up to 1
        wanted: a with 2 of (b, c)
        record: a with 1 of (b) + a with 2 of (b, c)
        record: a with 2 of (b, c)
        => the promises of c are accepted; c may claim with 0 and lose 1 of epoch 1
    "#]]
    .assert_eq(&sum.trace);
}
