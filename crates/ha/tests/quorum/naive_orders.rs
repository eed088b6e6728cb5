//! The orders in which one might change a setting at first thought: each loses.
//!
//! If a walsender counted by its own setting alone, each would lose in 96 of the 156 changes between settings of up
//! to three standbys: in those in which a set that can have acknowledged under the one setting misses a set of
//! promises that the other one accepts. As Postgres really counts, a mix of both settings acknowledges too, and each
//! order loses in 120.

use crate::model::{Agent, Counting, Op, Rules};
use crate::one_change::every_change;
use expect_test::{Expect, expect};

const STORE_FIRST: &[Op] = &[Op::StoreNew, Op::Postgres, Op::AwaitReaders];
const POSTGRES_FIRST: &[Op] = &[
    Op::Postgres,
    Op::AwaitReaders,
    Op::TakeBarrier,
    Op::AwaitBarrier,
    Op::StoreNew,
];
const NO_BARRIER: &[Op] = &[Op::StoreJoint, Op::Postgres, Op::AwaitReaders, Op::StoreNew];
const EARLY_BARRIER: &[Op] = &[
    Op::StoreJoint,
    Op::Postgres,
    Op::TakeBarrier,
    Op::AwaitReaders,
    Op::AwaitBarrier,
    Op::StoreNew,
];
const OURS: &[Op] = &[
    Op::StoreJoint,
    Op::Postgres,
    Op::AwaitReaders,
    Op::TakeBarrier,
    Op::AwaitBarrier,
    Op::StoreNew,
];

fn check(order: &'static [Op], as_read: usize, as_postgres: usize, trace: &Expect) {
    let lossy = |counting| {
        let rules = Rules {
            agent: Agent::Naive(order),
            counting,
            broken: None,
        };
        every_change(rules, 3)
    };
    let simple = lossy(Counting::AsRead);
    let real = lossy(Counting::AsPostgres);
    assert_eq!(
        (simple.lossy, real.lossy, real.worlds),
        (as_read, as_postgres, 156)
    );
    trace.assert_eq(&real.trace);
}

#[test]
fn the_store_first_loses() {
    check(
        STORE_FIRST,
        96,
        120,
        &expect![[r#"
            record: a with 1 of (b); wanted: a with 1 of (c)
            a writes 1
            b flushes 1; a acknowledges up to 1
            record: a with 1 of (c)
            => the promises of c, d are accepted; c may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn postgres_first_loses_even_with_a_barrier() {
    check(
        POSTGRES_FIRST,
        96,
        120,
        &expect![[r#"
            record: a with 1 of (b); wanted: a with 1 of (c)
            a writes 1
            c flushes 1
            a's file says: a with 1 of (c)
            a's walsender of c reads: a with 1 of (c); a acknowledges up to 1
            => the promises of b, d are accepted; b may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn a_joint_record_without_a_barrier_loses() {
    check(
        NO_BARRIER,
        96,
        120,
        &expect![[r#"
            record: a with 1 of (b); wanted: a with 1 of (c)
            a writes 1
            b flushes 1; a acknowledges up to 1
            record: a with 1 of (b) + a with 1 of (c)
            a's file says: a with 1 of (c)
            the checkpointer of a reads: a with 1 of (c)
            a's walsender of b reads: a with 1 of (c)
            a's walsender of c reads: a with 1 of (c)
            a's walsender of d reads: a with 1 of (c)
            every process has read it
            record: a with 1 of (c)
            => the promises of c, d are accepted; c may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn a_barrier_read_before_the_last_walsender_has_switched_loses() {
    check(
        EARLY_BARRIER,
        96,
        120,
        &expect![[r#"
            record: a with 1 of (b); wanted: a with 1 of (c)
            record: a with 1 of (b) + a with 1 of (c)
            a's file says: a with 1 of (c)
            the checkpointer of a reads: a with 1 of (c)
            a's walsender of c reads: a with 1 of (c)
            a's walsender of d reads: a with 1 of (c)
            the barrier is 0
            a writes 1
            b flushes 1; a acknowledges up to 1
            a's walsender of b reads: a with 1 of (c)
            every process has read it
            enough standbys have flushed the barrier
            record: a with 1 of (c)
            => the promises of c, d are accepted; c may claim with 0 and lose 1 of epoch 1
        "#]],
    );
}

#[test]
fn the_same_harness_loses_nothing_when_the_order_is_right() {
    check(OURS, 0, 0, &expect![[""]]);
}
