//! The rules, one cluster a test.

use super::*;
use crate::decide::decide;
use crate::decision::Action;
use crate::lineage::{Lineage, Position};
use crate::quorum::{Setting, SyncRecord};
use crate::types::{Epoch, Lsn, SystemId, Timeline};
use crate::view::{
    ClusterView, Contact, DataDir, Foreign, Initialize, Leadership, Member, NodeRecord, Postgres,
    Promise, Published, Standby, Storage, Switchover,
};
use crate::{Decision, NodeState};
use std::time::Duration;

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a plain name")
}

fn member(position: u64) -> Member {
    Member {
        host: "h".to_owned(),
        port: 5432,
        api_url: String::new(),
        state: NodeState::Standby,
        position: Lsn(position),
        timeline: Timeline(3),
        unfit: None,
        ties: crate::Ties::default(),
    }
}

/// Epoch 5 was recorded on behalf of p, on timeline 3; b is ours, g is Patroni's; nobody leads, commits are asynchronous.
fn cluster() -> Cluster {
    Cluster {
        initialize: Initialize::Done(SystemId(1)),
        epoch: Some(Leadership {
            epoch: Epoch(5),
            leader: name("p"),
            standby: false,
        }),
        lineage: Some(Published {
            epoch: Epoch(5),
            leader: Some(name("p")),
            lineage: Lineage::founded(Timeline(3), Epoch(5)),
        }),
        members: [(name("b"), member(100)), (name("g"), member(100))].into(),
        nodes: [(name("b"), NodeRecord::default())].into(),
        promises: [(name("b"), promise(5, 100))].into(),
        leader_position: Lsn(100),
        foreign: Foreign {
            members: [name("g")].into(),
            ended: Some(Timeline(2)),
            recorded: true,
            ..Foreign::default()
        },
        ..Cluster::default()
    }
}

fn promise(epoch: u64, lsn: u64) -> Promise {
    Promise {
        epoch: Epoch(epoch),
        position: Position {
            epoch: Epoch(5),
            timeline: Timeline(3),
            lsn: Lsn(lsn),
        },
        unfit: None,
        priority: 50,
    }
}

/// Detached at 100, with the note of epoch 5; promised so many seconds ago.
fn b(promised: u64) -> NodeView {
    NodeView {
        name: name("b"),
        data: DataDir::Ready(SystemId(1)),
        postgres: Postgres::Standby(Standby {
            received: Lsn(100),
            replayed: Lsn(100),
            end_known: true,
            open: true,
            ..Standby::default()
        }),
        lineage: Some(Lineage::founded(Timeline(3), Epoch(5))),
        lease: None,
        held: None,
        rewound: false,
        job: None,
        contact: Contact::default(),
        applied: None,
        storage: Storage::Healthy,
        registered: true,
        promised_at: Some(NOW.minus(Duration::from_secs(promised))),
        clean_stop: false,
        on_disk: None,
        may_not_found: None,
        down_since: None,
        start_failures: 0,
        stream_broken: None,
        stream_says: None,
        errand: None,
        source: None,
        unwatched: None,
        barred: None,
        nostream: false,
    }
}

const NOW: Instant = Instant(1_000_000_000_000);

fn decided(cluster: &Cluster, me: &NodeView) -> Decision {
    decide(&ClusterView::Known(Box::new(cluster.clone())), me, NOW)
}

/// The rule, with what its reason must contain.
fn check(cluster: &Cluster, me: &NodeView, rule: &str, says: &str) {
    let decision = decided(cluster, me);
    assert_eq!(decision.rule, rule, "{decision:?}");
    assert!(decision.reason.contains(says), "{decision:?}");
}

fn led_by_p() -> Cluster {
    let mut cluster = cluster();
    cluster.leader = Some(name("p"));
    cluster.foreign.leads = true;
    cluster.foreign.members.insert(name("p"));
    cluster.members.insert(name("p"), member(100));
    cluster.promises.clear();
    cluster
}

#[test]
fn a_leader_without_an_epoch_is_given_one_and_followed() {
    let mut cluster = led_by_p();
    cluster.foreign.recorded = false;
    cluster.epoch = None;
    cluster.lineage = None;
    let mut me = b(0);
    me.lineage = None;
    let decision = decided(&cluster, &me);
    let recognize = Action::Recognize {
        leader: name("p"),
        epoch: Epoch(1),
    };
    assert_eq!(decision.actions, [recognize], "{decision:?}");
    let cluster = led_by_p();
    check(&cluster, &me, "compare", "no note");
    check(&cluster, &b(0), "compare", "its agent is Patroni's");
}

#[test]
fn a_silent_leader_of_patronis_is_not_raced_for_even_with_proof() {
    let mut cluster = led_by_p();
    cluster.sync = Some(SyncRecord::of(Setting::quorum(
        name("p"),
        [name("b")].into(),
        1,
    )));
    let mut me = b(0);
    me.contact.epoch = Epoch(5);
    let Postgres::Standby(standby) = &mut me.postgres else {
        unreachable!("it is a standby");
    };
    standby.upstream = Some(name("p"));
    standby.streaming = true;
    check(&cluster, &me, "standby", "a standby of p");
    cluster.foreign.leads = false;
    check(&cluster, &me, "detach", "silent");
}

#[test]
fn the_key_of_this_very_node_is_patronis_too() {
    let mut cluster = led_by_p();
    cluster.leader = Some(name("b"));
    check(&cluster, &b(0), "not ours", "it must end first");
    let mut cluster = led_by_p();
    cluster.foreign.members.clear();
    check(&cluster, &b(0), "not ours", "no member record of Patroni's");
}

#[test]
fn after_patronis_leader_the_rival_goes_first_for_a_while() {
    check(&cluster(), &b(2), "election", "g may lead");
    check(&cluster(), &b(4), "claim", "claiming epoch 6");
    let mut ahead = cluster();
    ahead.members.insert(name("g"), member(150));
    check(&ahead, &b(4), "election", "g may lead");
    check(&ahead, &b(11), "claim", "claiming epoch 6");
    let mut unwilling = cluster();
    unwilling.foreign.unwilling.insert(name("g"));
    check(&unwilling, &b(1), "claim", "claiming epoch 6");
}

#[test]
fn an_order_tells_who_goes_first() {
    let order = |to: &str| Switchover {
        from: Some(name("p")),
        to: Some(name(to)),
        accept_loss: false,
    };
    let mut cluster = cluster();
    cluster.switchover = Some(order("b"));
    check(&cluster, &b(0), "claim", "claiming epoch 6");
    cluster.switchover = Some(order("g"));
    check(&cluster, &b(4), "election", "g may lead");
    check(&cluster, &b(11), "claim", "claiming epoch 6");
}

#[test]
fn who_has_not_followed_patronis_leader_does_not_lead_after_it() {
    let mut me = b(20);
    me.lineage = Some(Lineage::founded(Timeline(2), Epoch(4)));
    let mut cluster = cluster();
    let old = Position {
        epoch: Epoch(4),
        timeline: Timeline(2),
        lsn: Lsn(100),
    };
    let promise = cluster.promises.get_mut(&name("b")).expect("its promise");
    promise.position = old;
    check(&cluster, &me, "election", "has not followed it");
}

#[test]
fn patronis_record_says_who_has_every_commit() {
    let mut cluster = cluster();
    cluster.foreign.sync = true;
    let setting = |names: &[&str], needed| Setting {
        leader: name("p"),
        standbys: names.iter().map(|it| name(it)).collect(),
        needed,
    };
    cluster.sync = Some(SyncRecord::of(setting(&["b"], 1)));
    check(&cluster, &b(0), "claim", "claiming epoch 6");
    cluster.sync = Some(SyncRecord::of(setting(&["g"], 1)));
    check(&cluster, &b(20), "election", "0 of 1 promises");
    // Any one of two: half of them is no proof.
    cluster.sync = Some(SyncRecord::of(setting(&["b", "g"], 1)));
    check(&cluster, &b(20), "election", "1 of 2 promises");
    cluster.sync = Some(SyncRecord::of(setting(&["b", "g"], 2)));
    check(&cluster, &b(0), "claim", "claiming epoch 6");
}

#[test]
fn what_an_agent_of_patronis_has_taken_over_no_promise_counts_for() {
    let mut cluster = cluster();
    cluster.promises.insert(name("c"), promise(5, 100));
    cluster.members.insert(name("c"), member(100));
    assert_eq!(cluster.live_promises().len(), 2);
    cluster.foreign.members.insert(name("c"));
    assert_eq!(cluster.live_promises().len(), 1);
    let mut me = b(0);
    me.lineage = None;
    check(&cluster, &me, "withdraw", "can't stand by its promise");
}

#[test]
fn what_nobody_of_ours_has_seen_is_not_passed_over() {
    let mut cluster = cluster();
    cluster.foreign.recorded = false;
    cluster.foreign.ended = Some(Timeline(3));
    check(&cluster, &b(20), "not ours", "timeline 3");
    cluster.foreign.ended = Some(Timeline(2));
    cluster.foreign.sync = true;
    check(&cluster, &b(20), "not ours", "written by Patroni");
}
