//! Seeded worlds hold every invariant and converge; the same seed twice gives the same bytes.

use sim::{Options, run};

/// How many worlds a test run looks at. `cargo run -p sim -- --worlds 20000` looks at more.
const WORLDS: u64 = 600;

#[test]
fn every_invariant_holds_in_every_world() {
    let mut promotions = 0;
    for seed in 1..=WORLDS {
        let report = run(Options {
            seed,
            ..Options::default()
        });
        promotions += report.promotions;
        if let Some(violation) = report.violation {
            panic!(
                "seed {seed}: {} at {} ms: {}\n  repeat: cargo run -p sim -- --seed {seed} --trace",
                violation.invariant, violation.at_ms, violation.text
            );
        }
    }
    assert!(
        promotions > 1000,
        "only {promotions} promotions: the worlds have gone quiet"
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [7, 11, 13, 17] {
        let options = Options {
            seed,
            trace: true,
            ..Options::default()
        };
        let (one, other) = (run(options), run(options));
        assert_eq!(one.trace, other.trace);
        assert_eq!(one.digest, other.digest);
        let quiet = run(Options {
            trace: false,
            ..options
        });
        assert_eq!(one.digest, quiet.digest, "looking on changes nothing");
    }
}
