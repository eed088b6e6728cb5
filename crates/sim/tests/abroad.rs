//! Walks of a standby cluster: nobody is promoted in one, no WAL is put together of two histories, one name of a history
//! stands for one; and the walks notice when a rule is taken away.

use sim::abroad::{Break, walk};

const WALKS: u64 = 2000;

#[test]
fn a_cluster_follows_a_remote_and_is_its_own_again() {
    let (mut promotions, mut epochs) = (0, 0);
    for seed in 1..=WALKS {
        let outcome = walk(seed, None);
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}\n{}", outcome.told.join("\n"));
        }
        promotions += outcome.promotions;
        epochs += outcome.epochs;
    }
    assert!(
        promotions > 1000 && epochs > 10_000,
        "the walks have gone quiet: {promotions} promotions, {epochs} epochs"
    );
}

#[test]
fn each_broken_rule_is_noticed() {
    let unnoticed =
        |broken: &Break| (1..=WALKS).all(|seed| walk(seed, Some(*broken)).violation.is_none());
    let unnoticed: Vec<Break> = Break::ALL.into_iter().filter(unnoticed).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
