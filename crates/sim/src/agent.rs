//! The agent's process: its watch of the store, its beat, and the loop that observes, decides and starts one action.
//!
//! **Invariant:** a lease counts from when its request was sent; after a commit nothing is decided before the view has
//! come as far.

use crate::config::Break;
use crate::node::{Agent, Call, Life, NodeId, Purpose, Role, id_of, name_of};
use crate::store::{Answer, Key, Put, Request, Snapshot, Txn};
use crate::time::ms;
use crate::wal::lsn;
use crate::world::{Event, Target, World};
use ha::{Action, ClusterView, Contact, Decision, Hold, Instant, Lease};
use std::rc::Rc;
use std::time::Duration;

/// What an agent has sent has arrived by then, or never does.
const SETTLES: Duration = Duration::from_secs(5);
/// How long a kill may take before the leadership is left to its lease.
const UNKILLABLE: Duration = Duration::from_secs(1);

impl World {
    pub(crate) fn start_agent(&mut self, id: NodeId) {
        let run = self.new_run();
        let local = self.local(id);
        let member = self.store.current.cluster.nodes.contains_key(&name_of(id));
        let ttl = self.config.settings.ttl;
        let forgets = self.config.is_broken(Break::HoldLost);
        let node = &mut self.nodes[id];
        if !node.up || node.agent.alive || !member {
            return;
        }
        let decisions = node.agent.decisions;
        node.agent = Agent::dead(Rc::new(Snapshot::default()));
        node.agent.alive = true;
        node.agent.run = run;
        node.agent.started = local;
        node.agent.decisions = decisions;
        let hold = node.disk.hold.filter(|_| !forgets);
        node.agent.hold = hold.map(|epoch| Hold {
            epoch,
            until: local.plus(ttl),
        });
        node.agent.unsettled = Some(local.plus(SETTLES));
        self.note_of(id, || "agent starts".to_owned());
        let target = self.agent(id);
        self.after(ms(1), target, Event::Beat);
        self.after(ms(2), target, Event::Tick);
        self.push_view(id, false);
    }

    pub(crate) fn local(&self, id: NodeId) -> Instant {
        self.nodes[id].clock.read(self.now)
    }

    pub(crate) fn wake(&mut self, id: NodeId) {
        if self.nodes[id].agent.alive && !self.nodes[id].agent.wake_pending {
            self.nodes[id].agent.wake_pending = true;
            let soon = self.rng.between(200, 4000);
            let target = self.agent(id);
            self.after(soon, target, Event::Wake);
        }
    }

    pub(crate) fn on_agent(&mut self, id: NodeId, event: Event) {
        match event {
            Event::View(snapshot, quiet) => self.on_view(id, snapshot, quiet),
            Event::Answer { call, answer } => self.on_answer(id, call, Some(&answer)),
            Event::CallTimeout(call) => self.on_answer(id, call, None),
            Event::Tick => self.tick(id),
            Event::Wake => {
                self.nodes[id].agent.wake_pending = false;
                self.think(id);
            }
            Event::Beat => self.beat(id),
            Event::Step(serial) => self.step(id, serial),
            _ => {}
        }
    }

    fn on_view(&mut self, id: NodeId, snapshot: Rc<Snapshot>, quiet: bool) {
        let local = self.local(id);
        let me = name_of(id);
        let agent = &mut self.nodes[id].agent;
        agent.met = true;
        if snapshot.revision <= agent.snapshot.revision {
            return;
        }
        let old = std::mem::replace(&mut agent.snapshot, snapshot);
        let cluster = &agent.snapshot.cluster;
        let epoch = cluster.current_epoch();
        if agent.contact.epoch != epoch
            || (old.cluster.leader.is_none() && cluster.leader.is_some())
        {
            agent.contact = Contact {
                epoch,
                since: local,
                ..Contact::default()
            };
        }
        if agent.snapshot.at(&Key::Status) != old.at(&Key::Status) {
            agent.contact.beat = Some(local);
        }
        agent.registered |= cluster.nodes.contains_key(&me);
        let mine = cluster
            .promises
            .get(&me)
            .filter(|promise| promise.epoch == epoch);
        agent.promised_at = match (mine, agent.promised_at) {
            (Some(_), Some((known, at))) if known == epoch => Some((known, at)),
            (Some(_), _) => Some((epoch, local)),
            (None, _) => None,
        };
        if !quiet {
            self.wake(id);
        }
    }

    // The store.

    pub(crate) fn call(&mut self, id: NodeId, request: Request, purpose: Purpose) {
        let call = self.new_run();
        let sent = self.local(id);
        let run = self.nodes[id].agent.run;
        self.nodes[id]
            .agent
            .calls
            .insert(call, Call { sent, purpose });
        let store = self.net.store();
        if self.net.is_open(id, store)
            && let Some(mut delay) = self.net.store_delay(&mut self.rng, id, false)
        {
            if self.net.store_loss > 0 && self.rng.chance(self.config.late) {
                delay += self.rng.between(ms(300), ms(4000));
            }
            let event = Event::StoreArrive {
                from: id,
                agent: run,
                call,
                request,
            };
            self.after(delay, Target::World, event);
        }
        let timeout = self.nodes[id].clock.span(self.config.call_timeout);
        let target = self.agent(id);
        self.after(timeout, target, Event::CallTimeout(call));
    }

    /// No answer: whether it happened is unknown.
    fn on_answer(&mut self, id: NodeId, call: u64, answer: Option<&Answer>) {
        let local = self.local(id);
        let Some(call) = self.nodes[id].agent.calls.remove(&call) else {
            return;
        };
        if answer.is_some() {
            self.nodes[id].agent.heard = Some(local);
        }
        match call.purpose {
            Purpose::Grant => {
                if let Some(Answer::Granted(lease)) = answer {
                    self.nodes[id].agent.lease_id = Some(*lease);
                    self.announce(id);
                }
            }
            Purpose::Beat { epoch } => self.beat_answered(id, epoch, call.sent, answer),
            Purpose::Retake { epoch } => self.retake_answered(id, epoch, call.sent, answer),
            Purpose::Action { serial } => self.action_answered(id, serial, call.sent, answer),
        }
    }

    fn beat(&mut self, id: NodeId) {
        let every = u64::try_from(self.config.settings.beat.as_micros()).unwrap_or(u64::MAX);
        let next = self.nodes[id].clock.span(every);
        let target = self.agent(id);
        self.after(next, target, Event::Beat);
        self.announce(id);
    }

    /// The lease's renewal, with the member record, and for the leader its beat: one transaction.
    fn announce(&mut self, id: NodeId) {
        let member = self.member(id);
        let node = &self.nodes[id];
        let agent = &node.agent;
        let Some(lease) = agent.lease_id else {
            if !agent
                .calls
                .values()
                .any(|call| call.purpose == Purpose::Grant)
            {
                self.call(id, Request::Grant, Purpose::Grant);
            }
            return;
        };
        let mut txn = Txn {
            lease: Some(lease),
            ..Txn::default()
        };
        let known = agent.snapshot.cluster.members.get(&node.name);
        if known != Some(&member) {
            txn.puts.push(Put::Member(node.name.clone(), Some(member)));
        }
        let epoch = agent.lease.map(|lease| lease.epoch);
        if let (Some(epoch), true) = (epoch, agent.retaking) {
            return self.retake(id, epoch, lease);
        }
        let cluster = &agent.snapshot.cluster;
        if let Some(epoch) = epoch {
            if let Some(names) = self.to_ask(cluster) {
                txn.puts.push(Put::Failsafe(names));
            }
            txn.leads = Some((node.name.clone(), epoch));
            // Until it is primary, it says again what stands.
            let position = match node.pg.role {
                Role::Primary(_) => lsn(node.disk.flushed),
                Role::Standby(_) => cluster.leader_position,
            };
            if cluster.current_epoch() == epoch {
                txn.puts.push(Put::Status(position));
            }
        }
        self.call(id, Request::Commit(txn), Purpose::Beat { epoch });
    }

    fn beat_answered(
        &mut self,
        id: NodeId,
        epoch: Option<ha::Epoch>,
        sent: Instant,
        answer: Option<&Answer>,
    ) {
        match answer {
            Some(Answer::Committed(_)) => {
                if let Some(epoch) = epoch {
                    self.extend_lease(id, epoch, sent);
                }
            }
            Some(Answer::Refused) => self.retake_or_drop(id, epoch),
            Some(Answer::LeaseEnded) => {
                self.nodes[id].agent.lease_id = None;
                self.retake_or_drop(id, epoch);
            }
            Some(Answer::Granted(_)) | None => {}
        }
    }

    pub(crate) fn drop_lease(&mut self, id: NodeId, epoch: Option<ha::Epoch>) {
        let agent = &mut self.nodes[id].agent;
        if agent.lease.is_some_and(|lease| Some(lease.epoch) == epoch) {
            agent.lease = None;
            self.note_of(id, || "leadership is lost".to_owned());
            self.wake(id);
        }
    }

    /// The lease that was asked for at `sent`, and the guard's deadline with it.
    pub(crate) fn extend_lease(&mut self, id: NodeId, epoch: ha::Epoch, sent: Instant) {
        let counted = match self.config.is_broken(Break::LeaseFromAnswer) {
            true => self.local(id),
            false => sent,
        };
        let deadline = self.config.settings.deadline(counted);
        let agent = &mut self.nodes[id].agent;
        match &mut agent.lease {
            Some(lease) if lease.epoch == epoch => lease.deadline = lease.deadline.max(deadline),
            Some(lease) if lease.epoch > epoch => return,
            Some(_) | None => {
                agent.by_members = None;
                agent.retaking = false;
                agent.lease = Some(Lease {
                    epoch,
                    deadline,
                    by_members: false,
                });
                self.nodes[id].guard = None;
            }
        }
        let node = &mut self.nodes[id];
        node.guard = node.guard.max(Some(deadline));
        let at = node.clock.when(deadline);
        let target = self.machine(id);
        self.at(at, target, Event::GuardFire);
    }

    // The loop.

    fn tick(&mut self, id: NodeId) {
        let next = self.rng.between(ms(80), ms(120));
        let target = self.agent(id);
        self.after(next, target, Event::Tick);
        self.probe(id);
        self.ask_members(id);
        let store = self.net.store();
        if self.nodes[id].agent.snapshot.revision < self.store.current.revision
            && self.net.both_ways(id, store)
            && self.rng.chance(500)
        {
            self.push_view(id, false);
        }
        self.think(id);
    }

    /// The direct question to the leader's agent, which answers for the leadership that it holds.
    fn probe(&mut self, id: NodeId) {
        let cluster = &self.nodes[id].agent.snapshot.cluster;
        let Some(leader) = cluster
            .leader
            .as_ref()
            .map(id_of)
            .filter(|leader| *leader != id)
        else {
            return;
        };
        let epoch = cluster.current_epoch();
        let there = &self.nodes[leader];
        let holds = there.agent.lease.is_some_and(|lease| lease.epoch == epoch);
        if holds && there.agent_runs() && self.net.both_ways(id, leader) {
            let local = self.local(id);
            self.nodes[id].agent.contact.probe = Some(local);
        }
    }

    /// Observe, decide, start what was decided.
    fn think(&mut self, id: NodeId) {
        if let Some(serial) = self.finished(id) {
            self.step(id, serial);
        }
        self.note_downtime(id);
        let decision = self.judge(id);
        let agent = &mut self.nodes[id].agent;
        agent.decisions += 1;
        if agent.last_rule != decision.rule || !decision.actions.is_empty() {
            agent.last_rule = decision.rule;
            self.note_of(id, || format!("{}: {}", decision.rule, decision.reason));
        }
        let busy = self.is_busy(id);
        if let Some(action) = decision.actions.into_iter().next()
            && (!busy || action == Action::Fence)
        {
            self.start(id, decision.rule, action);
        }
    }

    /// Without an answer for a whole lease the view permits nothing, however new it is; so it is until it has caught up
    /// with the agent's start.
    pub(crate) fn silent_since(&self, id: NodeId) -> Option<Instant> {
        let agent = &self.nodes[id].agent;
        let old = |heard| self.local(id).since(heard) > self.config.settings.ttl;
        let silent = !agent.met || agent.heard.is_none_or(old);
        silent.then(|| agent.heard.unwrap_or(agent.started))
    }

    /// An action is under way; also as long as the view does not show what it has written.
    pub(crate) fn is_busy(&self, id: NodeId) -> bool {
        let agent = &self.nodes[id].agent;
        let (revision, until) = agent.must_see;
        agent.doing.is_some() || (agent.snapshot.revision < revision && self.local(id) < until)
    }

    fn note_downtime(&mut self, id: NodeId) {
        let local = self.local(id);
        let node = &mut self.nodes[id];
        match node.pg.life {
            Life::Up => {
                node.agent.down_since = None;
                node.agent.start_failures = 0;
            }
            Life::Down | Life::Starting | Life::Orphaned | Life::Dying => {
                node.agent.down_since = node.agent.down_since.or(Some(local));
            }
        }
        // What can't be killed (a dead disk) ends by its lease: no longer renewed, not released either.
        let long = node
            .agent
            .down_since
            .is_some_and(|since| local.since(since) > UNKILLABLE);
        if long
            && matches!(node.pg.life, Life::Orphaned | Life::Dying)
            && node.agent.lease.is_some()
        {
            node.agent.lease = None;
            node.agent.lease_id = None;
        }
    }

    pub(crate) fn judge(&mut self, id: NodeId) -> Decision {
        let now = self.local(id);
        let mut me = self.observe(id);
        let view = match self.silent_since(id) {
            Some(since) => ClusterView::Silent { since },
            None => {
                let mut cluster = self.nodes[id].agent.snapshot.cluster.clone();
                self.distort(&mut cluster, &mut me);
                ClusterView::Known(Box::new(cluster))
            }
        };
        ha::decide(&view, &me, now)
    }
}
