//! Walks of a cluster with agents of both kinds: nothing that was acknowledged is lost, and nobody acknowledges beside
//! another; and the walks notice when a rule between the kinds is taken away.

use sim::mixed::{Break, walk};

const WALKS: u64 = 3000;
/// Walks that have found something beyond these.
const FINDS: [u64; 3] = [7352, 8107, 22692];

fn seeds() -> impl Iterator<Item = u64> {
    FINDS.into_iter().chain(1..=WALKS)
}

#[test]
fn agents_of_both_kinds_share_a_cluster() {
    let mut promotions = [0; 2];
    let mut acknowledged = 0;
    for seed in seeds() {
        let outcome = walk(seed, None);
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}\n{}", outcome.told.join("\n"));
        }
        promotions[0] += outcome.promotions[0];
        promotions[1] += outcome.promotions[1];
        acknowledged += outcome.acknowledged;
    }
    assert!(
        promotions.iter().all(|count| *count > 1000) && acknowledged > 10_000,
        "the walks have gone quiet: {promotions:?} by Patroni and by us, {acknowledged} commits"
    );
}

#[test]
fn each_broken_rule_is_noticed() {
    let unnoticed =
        |broken: &Break| seeds().all(|seed| walk(seed, Some(*broken)).violation.is_none());
    let unnoticed: Vec<Break> = Break::ALL.into_iter().filter(unnoticed).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
