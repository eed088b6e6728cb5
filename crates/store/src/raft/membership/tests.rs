use super::*;
use expect_test::{Expect, expect};

/// Reads a line for each member: `name voter|learner [leader] [behind] [silent=SECONDS] [inc=N]`.
/// Members are numbered from 1 in the order of the lines.
fn world(text: &str) -> Vec<Observed> {
    let read = |(number, line): (usize, &str)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |key: &str| {
            let found = words.iter().find_map(|word| word.strip_prefix(key));
            found.map_or(0, |digits| digits.parse::<u64>().expect("a number"))
        };
        Observed {
            id: number as u64 + 1,
            name: words[0].to_owned(),
            incarnation: value("inc="),
            voter: words.contains(&"voter"),
            leader: words.contains(&"leader"),
            caught_up: !words.contains(&"behind"),
            silent: Duration::from_secs(value("silent=")),
        }
    };
    text.trim().lines().enumerate().map(read).collect()
}

fn check(text: &str, expected: Expect) {
    let planned = plan(&world(text), Duration::from_secs(60));
    expected.assert_eq(&match planned {
        None => "nothing".to_owned(),
        Some((change, reason)) => format!("{change:?}: {reason}"),
    });
}

fn check_leaving(text: &str, name: &str, expected: Expect) {
    expected.assert_eq(&format!("{:?}", leaving(&world(text), name)));
}

#[test]
fn a_lone_founder_stays_the_only_voter_of_a_pair() {
    check("m voter leader", expect!["nothing"]);
    check("m voter leader\na learner", expect!["nothing"]);
}

#[test]
fn with_the_second_node_all_three_vote() {
    check(
        "m voter leader\na learner\nb learner",
        expect!["Voters({1, 2, 3}): two more nodes can vote"],
    );
    check(
        "m voter leader\na learner\nb learner behind",
        expect!["nothing"],
    );
    check(
        "m voter leader\na learner silent=3\nb learner",
        expect!["nothing"],
    );
}

#[test]
fn further_nodes_learn_until_two_more_can_vote_at_once() {
    let three = "m voter leader\na voter\nb voter\n";
    check(&format!("{three}c learner"), expect!["nothing"]);
    check(
        &format!("{three}c learner\nd learner"),
        expect!["Voters({1, 2, 3, 4, 5}): two more nodes can vote"],
    );
    let five = "a voter leader\nb voter\nc voter\nd voter\ne voter\n";
    check(&format!("{five}f learner\ng learner"), expect!["nothing"]);
}

#[test]
fn a_dead_voter_is_replaced_after_the_grace_only() {
    check(
        "a voter leader\nb voter\nc voter silent=59\nd learner",
        expect!["nothing"],
    );
    check(
        "a voter leader\nb voter\nc voter silent=60\nd learner",
        expect!["Voters({1, 2, 4}): a voter is silent for too long"],
    );
    check(
        "a voter leader\nb voter\nc voter silent=60\nd learner silent=5",
        expect!["nothing"],
    );
    check(
        "a voter leader\nb voter\nc voter silent=60",
        expect!["nothing"],
    );
}

#[test]
fn a_wiped_voter_is_replaced_by_its_successor_at_once() {
    check(
        "a voter leader\nb voter\nc voter silent=3\nc learner inc=1 behind",
        expect!["nothing"],
    );
    check(
        "a voter leader\nb voter\nc voter silent=3\nc learner inc=1",
        expect!["Voters({1, 2, 4}): the node came back with an empty directory"],
    );
    check(
        "a voter leader\nb voter\nc learner silent=3\nc voter inc=1",
        expect!["Forget({3}): a node of the same name took their place"],
    );
}

#[test]
fn an_even_number_of_voters_is_repaired() {
    check(
        "a voter leader\nb voter\nc learner",
        expect!["Voters({1, 2, 3}): the number of voters must be odd"],
    );
    check(
        "a voter\nb voter leader",
        expect!["Voters({2}): the number of voters must be odd"],
    );
}

#[test]
fn leaving_keeps_the_number_odd() {
    check_leaving(
        "a voter leader\nb learner",
        "b",
        expect!["Ok(Some(Forget({2})))"],
    );
    check_leaving(
        "a voter leader\nb learner",
        "a",
        expect!["Ok(Some(Voters({2})))"],
    );
    check_leaving(
        "a voter leader\nb voter\nc voter",
        "c",
        expect!["Ok(Some(Voters({1})))"],
    );
    check_leaving(
        "a voter leader\nb voter\nc voter",
        "a",
        expect!["Ok(Some(Voters({2})))"],
    );
    check_leaving(
        "a voter leader\nb voter\nc voter\nd learner",
        "c",
        expect!["Ok(Some(Voters({1, 2, 4})))"],
    );
}

#[test]
fn who_is_not_there_has_left() {
    check_leaving("a voter leader", "x", expect!["Ok(None)"]);
}

#[test]
fn the_only_voter_cannot_leave() {
    check_leaving(
        "a voter leader",
        "a",
        expect![[r#"Err("a is the only voter, and no learner can take its place")"#]],
    );
    check_leaving(
        "a voter leader\nb learner behind",
        "a",
        expect![[r#"Err("a is the only voter, and no learner can take its place")"#]],
    );
}
