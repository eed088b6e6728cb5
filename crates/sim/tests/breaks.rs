//! The harness is proven: each rule that is broken on purpose is caught within some hundreds of worlds.

use sim::{Break, Options, run};

/// Runs worlds with `broken` until one fails in one of `invariants`.
fn check(broken: Break, within: u64, invariants: &[&str]) {
    for seed in 1..=within {
        let report = run(Options {
            seed,
            broken: Some(broken),
            ..Options::default()
        });
        if let Some(violation) = report.violation
            && invariants.contains(&violation.invariant)
        {
            return;
        }
    }
    panic!("{} was not caught in {within} worlds", broken.name());
}

const LOSS: &[&str] = &[
    "acknowledged_commits_survive",
    "promoted_node_had_every_acknowledged_commit",
    "visible_commits_survive",
];
const PROMISE: &[&str] = &[
    "acknowledged_commits_survive",
    "promoted_node_had_every_acknowledged_commit",
    "promised_nodes_receive_nothing",
    "promises_tell_the_truth",
];

#[test]
fn a_promise_written_while_wal_still_streams_in_is_caught() {
    check(Break::PromiseWhileStreaming, 600, PROMISE);
}

#[test]
fn a_promise_taken_back_without_checking_the_epoch_is_caught() {
    check(Break::WithdrawUnchecked, 300, PROMISE);
}

#[test]
fn a_claimant_that_is_not_the_most_advanced_is_caught() {
    check(Break::ClaimBehind, 100, LOSS);
}

#[test]
fn a_claim_that_replaces_the_record_is_caught() {
    check(Break::ClaimReplacesRecord, 300, LOSS);
}

#[test]
fn a_record_that_moves_on_before_the_barrier_is_caught() {
    check(Break::RecordBeforeBarrier, 300, LOSS);
}

#[test]
fn a_lease_counted_from_the_answer_is_caught() {
    check(Break::LeaseFromAnswer, 500, &["one_acknowledging_primary"]);
}

#[test]
fn a_hold_that_is_forgotten_is_caught() {
    check(Break::HoldForgotten, 200, &["one_acknowledging_primary"]);
}

#[test]
fn a_hold_that_a_restart_loses_is_caught() {
    check(Break::HoldLost, 400, &["one_acknowledging_primary"]);
}

#[test]
fn a_release_while_a_backend_lives_is_caught() {
    check(
        Break::ReleaseWithBackends,
        100,
        &["one_acknowledging_primary"],
    );
}

#[test]
fn a_primary_that_opens_early_is_caught() {
    check(Break::OpenEarly, 800, &["visible_commits_survive"]);
}

#[test]
fn acknowledging_before_the_lineage_is_published_is_caught() {
    check(Break::AcknowledgeUnpublished, 600, LOSS);
}

#[test]
fn following_without_the_check_is_caught() {
    check(Break::FollowUnread, 500, PROMISE);
}

#[test]
fn timeline_numbers_without_epochs_are_caught() {
    check(
        Break::NumbersBelieved,
        200,
        &["timelines_never_fork_unseen", "promises_tell_the_truth"],
    );
}

#[test]
fn reconnecting_across_leaderships_is_caught() {
    check(Break::StreamAcrossEpochs, 300, PROMISE);
}

#[test]
fn a_transaction_that_arrives_late_is_caught() {
    check(Break::LateTransactions, 500, PROMISE);
}

#[test]
fn a_crash_that_is_taken_for_a_handover_is_caught() {
    check(Break::CrashAsHandover, 300, &["a_handover_is_a_clean_stop"]);
}

#[test]
fn a_pause_that_is_not_seen_is_caught() {
    check(
        Break::PauseUnseen,
        100,
        &["a_paused_cluster_keeps_its_leader"],
    );
}

#[test]
fn a_candidate_that_shall_not_lead_is_caught() {
    check(Break::PriorityUnseen, 200, &["unwanted_nodes_lead_last"]);
}

#[test]
fn a_loss_that_nobody_has_accepted_is_caught() {
    check(Break::LossUnasked, 100, LOSS);
}

#[test]
fn a_dropped_node_that_leaves_while_it_is_needed_is_caught() {
    check(Break::LeaveNamed, 100, &["cluster_converges"]);
}

#[test]
fn half_a_record_taken_for_a_whole_one_is_caught() {
    check(Break::HalfBelieved, 600, &["promises_tell_the_truth"]);
}

#[test]
fn a_founder_that_overlooks_its_data_is_caught() {
    check(Break::DataOverlooked, 100, LOSS);
}

#[test]
fn a_node_that_streams_into_what_is_not_the_leaders_is_caught() {
    check(
        Break::RejoinUnproven,
        100,
        &["timelines_never_fork_unseen", "promises_tell_the_truth"],
    );
}
