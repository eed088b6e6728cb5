//! Leaders follow upon leaders: claims at every point, in the middle of changes too, while zombies go on
//! acknowledging with those who have not promised, and old leaders come back as standbys.

use crate::model::{Bounds, Break, Compact, Rules, Verdict, World, all_settings, explore};
use expect_test::{Expect, expect};

struct Story {
    rules: Rules,
    nodes: usize,
    reigns: u8,
    commits: [u8; 3],
    changes: [u8; 3],
    /// Of the settings of every leader, those that it may choose.
    choice: fn(&Compact) -> bool,
}

/// Three nodes, two leaders, every setting.
const STORY: Story = Story {
    rules: Rules::OURS,
    nodes: 3,
    reigns: 2,
    commits: [1, 1, 1],
    changes: [1, 1, 1],
    choice: |_| true,
};

/// Node a leads with `needed` of `standbys` when the story begins.
fn tell(story: &Story, standbys: u8, needed: u8) -> Verdict {
    let first = Compact {
        leader: 0,
        standbys,
        needed,
    };
    let mut settings = vec![first];
    for leader in 0..story.nodes {
        let others = all_settings(leader, story.nodes).into_iter();
        settings.extend(others.filter(|other| *other != first && (story.choice)(other)));
    }
    let Story {
        nodes,
        reigns,
        commits,
        changes,
        ..
    } = *story;
    let mut world = World::new(
        story.rules,
        Bounds {
            nodes,
            reigns,
            commits,
            changes,
        },
        settings,
    );
    let start = world.start(0);
    explore(&mut world, start)
}

/// Every setting of a leader with two standbys, but for their names.
const FIRST_OF_TWO: [(u8, u8); 4] = [(0b000, 0), (0b010, 1), (0b110, 1), (0b110, 2)];

fn check(stories: &[(Story, &[(u8, u8)])], states: &Expect) {
    let mut total = 0;
    for (story, firsts) in stories {
        for (standbys, needed) in *firsts {
            let verdict = tell(story, *standbys, *needed);
            assert_eq!(verdict.lost, None, "an acknowledged commit is lost");
            total += verdict.states;
        }
    }
    states.assert_eq(&format!("{total} states"));
}

#[test]
fn a_claim_in_the_middle_of_a_change_loses_nothing_of_either_leader() {
    let story = Story {
        changes: [1, 0, 0],
        ..STORY
    };
    check(&[(story, &FIRST_OF_TWO)], &expect!["225157 states"]);
}

#[test]
fn a_change_on_top_of_a_claim_loses_nothing_of_either_leader() {
    let story = Story {
        changes: [0, 1, 0],
        ..STORY
    };
    check(&[(story, &FIRST_OF_TWO)], &expect!["658617 states"]);
}

#[test]
fn changes_under_both_leaders_lose_nothing() {
    let story = Story {
        choice: |setting| setting.standbys.count_ones() != 1,
        ..STORY
    };
    check(&[(story, &[(0b110, 1)])], &expect!["243951 states"]);
}

#[test]
fn four_nodes_with_all_standbys_synchronous_lose_nothing() {
    let all: fn(&Compact) -> bool = |setting| setting.standbys.count_ones() == 3;
    let first = Story {
        nodes: 4,
        changes: [1, 0, 0],
        choice: all,
        ..STORY
    };
    let second = Story {
        nodes: 4,
        changes: [0, 1, 0],
        choice: all,
        ..STORY
    };
    check(
        &[(first, &[(0b1110, 1)]), (second, &[(0b1110, 2)])],
        &expect!["789153 states"],
    );
}

#[test]
fn three_leaders_lose_nothing() {
    let story = Story {
        reigns: 3,
        changes: [0; 3],
        ..STORY
    };
    check(&[(story, &[(0b110, 1)])], &expect!["538535 states"]);
}

#[test]
#[ignore = "about a minute"]
fn changes_under_both_leaders_among_all_settings_lose_nothing() {
    check(&[(STORY, &FIRST_OF_TWO)], &expect!["6063753 states"]);
}

#[test]
#[ignore = "about a minute"]
fn two_commits_of_each_leader_lose_nothing() {
    let first = Story {
        commits: [2, 2, 0],
        changes: [1, 0, 0],
        ..STORY
    };
    let second = Story {
        commits: [2, 2, 0],
        changes: [0, 1, 0],
        ..STORY
    };
    check(
        &[(first, &FIRST_OF_TWO), (second, &FIRST_OF_TWO)],
        &expect!["5337501 states"],
    );
}

#[test]
#[ignore = "about a minute"]
fn four_nodes_with_pairs_of_synchronous_standbys_lose_nothing() {
    let some: fn(&Compact) -> bool = |setting| {
        setting.standbys.count_ones() == 3
            || setting.standbys.count_ones() == 2 && setting.needed == 1
    };
    let first = Story {
        nodes: 4,
        changes: [1, 0, 0],
        choice: some,
        ..STORY
    };
    let second = Story {
        nodes: 4,
        changes: [0, 1, 0],
        choice: some,
        ..STORY
    };
    check(
        &[(first, &[(0b1110, 1)]), (second, &[(0b1110, 2)])],
        &expect!["4278207 states"],
    );
}

#[test]
#[ignore = "about a minute"]
fn three_leaders_of_whom_the_first_is_in_a_change_lose_nothing() {
    let plain = Story {
        reigns: 3,
        changes: [0; 3],
        ..STORY
    };
    let story = Story {
        reigns: 3,
        changes: [1, 0, 0],
        ..STORY
    };
    check(
        &[(plain, &FIRST_OF_TWO), (story, &[(0b110, 1)])],
        &expect!["5496661 states"],
    );
}

fn check_loss(broken: Break, trace: &Expect) {
    let verdict = tell(
        &Story {
            rules: Rules::but(broken),
            ..STORY
        },
        0b110,
        1,
    );
    trace.assert_eq(&verdict.lost.expect("the broken rule is caught"));
}

#[test]
fn a_claimant_that_is_not_the_most_advanced_is_caught() {
    check_loss(
        Break::ClaimantNotTheMostAdvanced,
        &expect![[r#"
            record: a with 1 of (b, c); wanted: a with 1 of (b, c)
            a writes 1
            b flushes 1; a acknowledges up to 1
            => the promises of a, b, c are accepted; c may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn a_claim_that_replaces_the_record_is_caught() {
    check_loss(
        Break::ClaimReplacesTheRecord,
        &expect![[r#"
            record: a with 1 of (b, c); wanted: a with 1 of (b, c)
            a writes 1
            b flushes 1; a acknowledges up to 1
            a claims with a; record: a with 1 of (c)
            => the promises of c are accepted; c may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn a_new_leader_whose_record_moves_on_before_the_barrier_is_caught() {
    check_loss(
        Break::BarrierNotAwaited,
        &expect![[r#"
            record: a with 1 of (b, c); wanted: a with 1 of (b, c)
            a writes 1
            b flushes 1; a acknowledges up to 1
            a claims with a; record: a with 1 of (b, c) + a with 1 of (c)
            a's file says: a with 1 of (c)
            the barrier is 1
            record: a with 1 of (c)
            => the promises of c are accepted; c may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn a_new_leader_whose_settings_are_asked_one_by_one_is_caught() {
    check_loss(
        Break::EachSettingByItself,
        &expect![[r#"
            record: a with 1 of (b, c); wanted: a with 1 of (b, c)
            b claims with a, b; record: a with 1 of (b, c) + b with 1 of (a)
            b writes 1
            wanted: b with 2 of (a, c)
            record: a with 1 of (b, c) + b with 1 of (a) + b with 2 of (a, c)
            b's file says: b with 2 of (a, c)
            c follows b from 0
            c flushes 1; b acknowledges up to 1
            => the promises of a are accepted; a may claim with 0 and lose 1 of epoch 2
        "#]],
    );
}
