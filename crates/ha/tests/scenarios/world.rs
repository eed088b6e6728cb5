//! A world where everything that is decided succeeds at once, for stories that a person can read.

use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{
    Action, Claim, Cluster, ClusterView, Contact, DataDir, Decision, Epoch, Errand, Initialize,
    Instant, Leadership, Lease, Lineage, Lsn, Member, NodeName, NodeRecord, NodeState, NodeView,
    Postgres, Primary, Published, Remote, Standby, Storage, Switchover, SyncMode, SystemId,
    Timeline, Walsender, decide,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

const SYSTEM: SystemId = SystemId(7);

/// The cluster and its nodes, all seen at once.
#[derive(Default)]
pub(crate) struct World {
    now: Instant,
    cluster: Cluster,
    nodes: BTreeMap<NodeName, Node>,
    /// Of the primary that a standby cluster follows; 0 is the first.
    remote: Timeline,
    log: String,
}

struct Node {
    me: NodeView,
    /// The end of its WAL.
    wal: Lsn,
    alive: bool,
    /// Nobody hears of it.
    silent: bool,
    /// It does not learn that its next claim was granted.
    forgets: bool,
    /// The user's program lets it not be promoted.
    refuses: bool,
}

impl World {
    pub(crate) fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log)
    }

    /// One line of a story.
    pub(crate) fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["nodes", names @ ..] => names.iter().for_each(|name| self.add(name)),
            ["set", "asynchronous"] => self.cluster.settings.sync_mode = SyncMode::Off,
            ["set", "chosen"] => self.cluster.settings.sync_mode = SyncMode::On,
            ["set", "strict"] => self.cluster.settings.sync_strict = true,
            ["set", "count", count] => {
                self.cluster.settings.sync_node_count = count.parse().expect("a number");
            }
            ["run"] => self.run(),
            ["time", millis] => self.pass(millis.parse().expect("milliseconds")),
            ["write", name, bytes] => self.write(name, bytes.parse().expect("a number")),
            ["kill", name] => self.node_mut(name).me.postgres = Postgres::Down { leftovers: 0 },
            ["lose", name] => self.lose(name),
            ["return", name] => self.node_mut(name).alive = true,
            ["silence", name] => self.node_mut(name).silent = true,
            ["hear", name] => self.node_mut(name).silent = false,
            ["lease", "ends"] => self.end_lease(),
            ["order", from, to] => {
                let order = Switchover {
                    from: Some(name_of(from)),
                    to: Some(name_of(to)),
                    ..Switchover::default()
                };
                self.cluster.switchover = Some(order);
            }
            // Its pre_promote refuses from now on; or would not any more, and is asked again.
            ["refuse", name] => self.node_mut(name).refuses = true,
            ["agree", name] => {
                let node = self.node_mut(name);
                node.refuses = false;
                node.me.barred = None;
            }
            // The lineage that was published last is of this epoch.
            ["unpublished", epoch] => {
                let lineage = self.cluster.lineage.as_mut().expect("a lineage");
                lineage.epoch = Epoch(epoch.parse().expect("a number"));
            }
            // The last position that a leader has told of.
            ["said", position] => {
                self.cluster.leader_position = Lsn(position.parse().expect("a number"));
            }
            // A person wants it to lead, whatever is lost.
            ["accept", name] => {
                let order = Switchover {
                    to: Some(name_of(name)),
                    accept_loss: true,
                    ..Switchover::default()
                };
                self.cluster.switchover = Some(order);
            }
            ["restart", name] => self.node_mut(name).me.errand = Some(Errand::Restart),
            // Its primary was given more of something than it has.
            ["starve", name] => {
                if let Postgres::Standby(standby) = &mut self.node_mut(name).me.postgres {
                    standby.starved = Some("max_connections is 100, its primary has 200".into());
                }
            }
            // Rewound to its leader, it starts, and waits for WAL that only that leader has.
            ["wait-after-rewind", name] => {
                let me = &mut self.node_mut(name).me;
                me.rewound = true;
                me.postgres = Postgres::Starting;
            }
            ["reinitialize", name] => {
                self.node_mut(name).me.errand = Some(Errand::Reinitialize);
            }
            ["maintenance", name, on] => self.record(name).maintenance = *on == "on",
            ["pause", on] => self.cluster.settings.paused = *on == "on",
            ["priority", name, priority] => {
                self.record(name).priority = priority.parse().expect("a number");
            }
            // The store and every state directory are gone; the data is there.
            ["amnesia"] => {
                let nodes = std::mem::take(&mut self.cluster.nodes);
                self.cluster = Cluster {
                    nodes,
                    ..Cluster::default()
                };
                let names: Vec<String> = self.nodes.keys().map(NodeName::to_string).collect();
                for name in names {
                    self.lose(&name);
                    let node = self.node_mut(&name);
                    node.alive = true;
                    node.me.lineage = None;
                    node.me.may_not_found = Some("it belongs to a lost cluster".to_owned());
                }
            }
            ["erase", name] => {
                let me = &mut self.node_mut(name).me;
                me.data = DataDir::Empty;
                me.may_not_found = None;
            }
            ["allow", name] => self.node_mut(name).me.may_not_found = None,
            // Its registration went without its knowledge.
            ["forgotten", name] => {
                self.cluster.nodes.remove(&name_of(name));
            }
            // The same, and its agent had seen that it was registered.
            ["unregistered", name] => {
                self.cluster.nodes.remove(&name_of(name));
                self.node_mut(name).me.registered = true;
            }
            ["drop", name] => self.record(name).dropped = true,
            // Its new copy of the data was cut off.
            ["unfinish", name] => {
                let me = &mut self.node_mut(name).me;
                me.data = DataDir::Unfinished;
                me.postgres = Postgres::Down { leftovers: 0 };
            }
            // Its disk answers with errors, as far as the control file goes.
            ["unusable", name] => {
                let me = &mut self.node_mut(name).me;
                me.data = DataDir::Unusable("its control file can't be read".to_owned());
                me.postgres = Postgres::Down { leftovers: 0 };
            }
            // The next claim's answer does not reach the node.
            ["forget", name] => self.node_mut(name).forgets = true,
            ["step", name] => {
                self.step(&name_of(name));
            }
            ["stray", name, bytes] => {
                let bytes: u64 = bytes.parse().expect("a number");
                let node = self.node_mut(name);
                node.wal = Lsn(node.wal.0 + bytes);
            }
            ["standby-cluster", on] => {
                let remote = Remote {
                    host: Some("far".to_owned()),
                    ..Remote::default()
                };
                self.cluster.settings.remote = (*on == "on").then_some(remote);
            }
            // The remote has failed over: what streams from it goes on to its new timeline.
            ["remote-timeline", timeline] => {
                self.remote = Timeline(timeline.parse().expect("a number"));
                for node in self.nodes.values_mut() {
                    if let Postgres::Standby(standby) = &mut node.me.postgres
                        && standby.remote.is_some()
                    {
                        standby.timeline = self.remote;
                    }
                }
            }
            ["show"] => self.show(),
            _ => panic!("unknown command {line:?}"),
        }
        self.refresh();
    }

    fn add(&mut self, name: &str) {
        let name = name_of(name);
        let id = self.nodes.len() as u64 + 1;
        self.cluster.nodes.insert(
            name.clone(),
            NodeRecord {
                id,
                ..NodeRecord::default()
            },
        );
        let me = fresh(name.clone());
        self.nodes.insert(
            name,
            Node {
                me,
                wal: Lsn(0),
                alive: true,
                silent: false,
                forgets: false,
                refuses: false,
            },
        );
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(&name_of(name)).expect("a known node")
    }

    fn record(&mut self, name: &str) -> &mut NodeRecord {
        self.cluster
            .nodes
            .get_mut(&name_of(name))
            .expect("a known node")
    }

    /// The machine is gone; its disk is not.
    fn lose(&mut self, name: &str) {
        let node = self.node_mut(name);
        let (wal, lineage, data) = (node.wal, node.me.lineage.clone(), node.me.data.clone());
        let me = NodeView {
            lineage,
            data,
            ..fresh(name_of(name))
        };
        *node = Node {
            me,
            wal,
            alive: false,
            silent: false,
            forgets: false,
            refuses: false,
        };
    }

    fn end_lease(&mut self) {
        if let Some(leader) = self.cluster.leader.take()
            && let Some(node) = self.nodes.get_mut(&leader)
        {
            node.me.lease = None;
        }
    }

    /// The primary writes; who streams from it, has it at once.
    fn write(&mut self, name: &str, bytes: u64) {
        let name = name_of(name);
        let end = Lsn(self.nodes[&name].wal.0 + bytes);
        for (other, node) in &mut self.nodes {
            let streams = matches!(&node.me.postgres,
                Postgres::Standby(standby) if standby.streaming && standby.upstream.as_ref() == Some(&name));
            if *other == name || (streams && node.alive) {
                node.wal = end;
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(Duration::from_millis(millis));
        let (now, settings) = (self.now, self.cluster.settings.clone());
        let leader = self.cluster.leader.clone();
        for (name, node) in &mut self.nodes {
            if Some(name) == leader.as_ref()
                && !node.silent
                && let Some(lease) = &mut node.me.lease
            {
                lease.deadline = settings.deadline(now);
            }
        }
    }

    /// Lets everybody decide in turn, until nobody has anything to do.
    fn run(&mut self) {
        for _ in 0..60 {
            let mut quiet = true;
            let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
            for name in names {
                quiet &= !self.step(&name);
            }
            self.now = self.now.plus(Duration::from_millis(5));
            if quiet {
                return;
            }
        }
        self.log.push_str("(and so on)\n");
    }

    /// Whether the node had something to do.
    fn step(&mut self, name: &NodeName) -> bool {
        self.refresh();
        let Some(node) = self
            .nodes
            .get(name)
            .filter(|node| node.alive && !node.silent)
        else {
            return false;
        };
        let view = ClusterView::Known(Box::new(self.cluster.clone()));
        let Decision {
            actions,
            reason,
            rule,
            ..
        } = decide(&view, &node.me, self.now);
        for action in &actions {
            let _ = writeln!(self.log, "{name}  {rule}: {reason}");
            self.act(name, action.clone());
        }
        !actions.is_empty()
    }

    fn show(&mut self) {
        let view = ClusterView::Known(Box::new(self.cluster.clone()));
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.alive) {
            let Decision { reason, state, .. } = decide(&view, &node.me, self.now);
            let _ = writeln!(self.log, "{name}  {state}: {reason}");
        }
    }

    /// What everybody sees of everybody.
    fn refresh(&mut self) {
        let now = self.now;
        let leader = self.cluster.leader.clone();
        let epoch = self.cluster.current_epoch();
        let heard = leader
            .as_ref()
            .and_then(|leader| self.nodes.get(leader))
            .is_some_and(|node| node.alive && !node.silent);
        let mut walsenders: BTreeMap<NodeName, BTreeMap<NodeName, Walsender>> = BTreeMap::new();
        self.cluster.members.clear();
        for (name, node) in &mut self.nodes {
            if node.alive {
                self.cluster.members.insert(name.clone(), member(&node.me));
            }
            if node.me.contact.epoch != epoch {
                node.me.contact = Contact {
                    epoch,
                    since: now,
                    ..Contact::default()
                };
            }
            if heard {
                node.me.contact.beat = Some(now);
            }
            node.me.errand = node.me.errand.and_then(|it| it.left(&node.me.postgres));
            if let Postgres::Standby(standby) = &mut node.me.postgres {
                standby.received = node.wal;
                standby.replayed = node.wal;
                if let Some(upstream) = standby.upstream.clone().filter(|_| node.alive) {
                    let walsender = Walsender {
                        streaming: true,
                        flushed: node.wal,
                        seen: now,
                    };
                    walsenders
                        .entry(upstream)
                        .or_default()
                        .insert(name.clone(), walsender);
                }
            }
        }
        for (name, node) in &mut self.nodes {
            let wal = node.wal;
            if let Postgres::Primary(primary) = &mut node.me.postgres {
                primary.flushed = wal;
                for walsender in primary.standbys.values_mut() {
                    walsender.streaming = false;
                }
                primary
                    .standbys
                    .extend(walsenders.remove(name).unwrap_or_default());
                if leader.as_ref() == Some(name) {
                    self.cluster.leader_position = wal;
                }
            }
        }
    }

    // What is decided, happens.

    fn act(&mut self, name: &NodeName, action: Action) {
        let now = self.now;
        let deadline = self.cluster.settings.deadline(now);
        let wal = self.nodes[name].wal;
        let leader_wal = |from: &NodeName| self.nodes.get(from).map_or(wal, |node| node.wal);
        match action {
            Action::Found => {
                let epoch = self.cluster.current_epoch().next();
                self.cluster.initialize = Initialize::Founding;
                self.lead(name, epoch);
            }
            Action::Bootstrap | Action::Adopt => self.bootstrap(name),
            Action::Reattach { epoch } => {
                self.me(name).lease = Some(Lease {
                    epoch,
                    deadline,
                    by_members: false,
                });
            }
            Action::Rejoin {
                leader, lineage, ..
            } => {
                let end = leader_wal(&leader);
                let note = self.me(name).lineage.clone();
                let part = |note: Lineage| lineage.has_all_of(&note, note.at(wal).timeline, wal);
                match note.is_some_and(part) {
                    true => self.stream(name, leader, lineage, end),
                    false => self.act(name, Action::Park),
                }
            }
            Action::Park => {
                self.me(name).clean_stop = false;
                self.me(name).on_disk = None;
                self.me(name).postgres = Postgres::Standby(Standby {
                    received: wal,
                    replayed: wal,
                    end_known: true,
                    ..Standby::default()
                });
            }
            Action::Detach => {
                if let Postgres::Standby(standby) = &mut self.me(name).postgres {
                    standby.upstream = None;
                    standby.remote = None;
                    standby.streaming = false;
                    standby.end_known = true;
                }
            }
            Action::Promise(promise) => {
                self.cluster.promises.insert(name.clone(), promise);
                self.me(name).promised_at = Some(now);
            }
            Action::Withdraw { .. } => {
                self.cluster.promises.remove(name);
            }
            Action::Claim(Claim {
                epoch,
                record,
                standby,
                ..
            }) => {
                self.cluster.sync = record;
                self.lead(name, epoch);
                if let Some(leadership) = &mut self.cluster.epoch {
                    leadership.standby = standby;
                }
            }
            Action::Promote { .. } if self.nodes[name].refuses => {
                self.me(name).barred = Some("pre_promote refused".to_owned());
            }
            Action::Promote { epoch, .. } => self.promote(name, epoch),
            Action::Publish { epoch, lineage } => {
                self.cluster.leader_position = lineage.newest().begins;
                self.cluster.lineage = Some(Published {
                    epoch,
                    leader: Some(name.clone()),
                    lineage,
                });
            }
            Action::FollowRemote { epoch, remote } => self.follow_remote(name, epoch, remote),
            Action::Record { record, .. } => self.cluster.sync = record,
            Action::Apply { epoch, record } => {
                let alone = || SyncRecord::of(Setting::alone(name.clone()));
                let record = record.unwrap_or_else(alone);
                self.me(name).applied = Some(Applied {
                    epoch,
                    record,
                    barrier: wal,
                });
            }
            Action::Open => match &mut self.me(name).postgres {
                Postgres::Standby(standby) => standby.open = true,
                Postgres::Primary(primary) => primary.open = true,
                _ => {}
            },
            Action::Follow {
                leader, lineage, ..
            }
            | Action::Rewind {
                leader, lineage, ..
            }
            | Action::Clone {
                leader, lineage, ..
            }
            | Action::Compare {
                leader, lineage, ..
            } => {
                let end = leader_wal(&leader);
                let me = self.me(name);
                me.errand = me.errand.filter(|it| *it != Errand::Reinitialize);
                me.rewound = false;
                self.stream(name, leader, lineage, end);
            }
            Action::Drain | Action::Stop | Action::Fence => {
                let me = self.me(name);
                me.clean_stop = action == Action::Drain;
                me.on_disk = me.clean_stop.then_some(wal);
                me.postgres = Postgres::Down { leftovers: 0 };
            }
            Action::Release { .. } => {
                self.cluster.leader = None;
                self.me(name).lease = None;
            }
            Action::ClearSwitchover { .. } => self.cluster.switchover = None,
            Action::Recognize { .. } => panic!("Patroni does not lead here"),
            Action::Feed { .. } => self.me(name).lineage = None,
            Action::Leave => {
                self.nodes.remove(name);
                self.cluster.nodes.remove(name);
                self.cluster.promises.remove(name);
            }
        }
    }

    fn me(&mut self, name: &NodeName) -> &mut NodeView {
        &mut self.nodes.get_mut(name).expect("a known node").me
    }

    fn lead(&mut self, name: &NodeName, epoch: Epoch) {
        let deadline = self.cluster.settings.deadline(self.now);
        self.cluster.leader = Some(name.clone());
        self.cluster.epoch = Some(Leadership {
            epoch,
            leader: name.clone(),
            standby: false,
        });
        let node = self.nodes.get_mut(name).expect("a known node");
        if !std::mem::take(&mut node.forgets) {
            node.me.lease = Some(Lease {
                epoch,
                deadline,
                by_members: false,
            });
        }
    }

    fn bootstrap(&mut self, name: &NodeName) {
        let epoch = self.cluster.current_epoch();
        let follows = self.cluster.settings.remote.is_some();
        let lineage = Lineage::founded(Timeline(1), epoch);
        self.cluster.initialize = Initialize::Done(SYSTEM);
        self.cluster.sync = (!follows).then(|| SyncRecord::of(Setting::alone(name.clone())));
        self.cluster.lineage = Some(Published {
            epoch,
            leader: Some(name.clone()),
            lineage: lineage.clone(),
        });
        let me = self.me(name);
        me.data = DataDir::Ready(SYSTEM);
        me.lineage = Some(lineage);
        if !follows {
            me.postgres = Postgres::Primary(Primary {
                timeline: Timeline(1),
                ..Primary::default()
            });
        }
        self.nodes.get_mut(name).expect("a known node").wal = Lsn(100);
    }

    /// The remote has every record that is here, and more; each of its timelines begins where this node stands.
    fn follow_remote(&mut self, name: &NodeName, epoch: Epoch, remote: Remote) {
        let timeline = self.remote.max(Timeline(1));
        let node = &self.nodes[name];
        let (note, end) = (node.me.lineage.clone(), node.wal);
        let lineage = match note {
            Some(note) if note.newest().timeline == timeline => note,
            note => {
                let before = Timeline(timeline.0 - 1);
                let note = note.as_ref().map(|note| (note, end));
                let next = epoch.next();
                let lineage = Lineage::observed(note, timeline, &[(before, end)], next);
                self.lead(name, next);
                if let Some(leadership) = &mut self.cluster.epoch {
                    leadership.standby = true;
                }
                self.cluster.lineage = Some(Published {
                    epoch: next,
                    leader: Some(name.clone()),
                    lineage: lineage.clone(),
                });
                lineage
            }
        };
        let me = self.me(name);
        me.data = DataDir::Ready(SYSTEM);
        me.lineage = Some(lineage);
        let open = matches!(&me.postgres, Postgres::Standby(standby) if standby.open);
        me.postgres = Postgres::Standby(Standby {
            remote: Some(remote),
            timeline,
            streaming: true,
            open,
            ..Standby::default()
        });
        self.nodes.get_mut(name).expect("a known node").wal = Lsn(end.0 + 50);
    }

    fn promote(&mut self, name: &NodeName, epoch: Epoch) {
        let now = self.now;
        let named: BTreeSet<NodeName> = self
            .cluster
            .sync
            .as_ref()
            .map(|sync| sync.newest().standbys.clone())
            .unwrap_or_default();
        let unseen = Walsender {
            streaming: false,
            flushed: Lsn::ZERO,
            seen: now,
        };
        let standbys = named.into_iter().map(|name| (name, unseen)).collect();
        let node = self.nodes.get_mut(name).expect("a known node");
        let note = node.me.lineage.clone().expect("a note");
        let timeline = Timeline(note.newest().timeline.0 + 1);
        node.me.lineage = Some(note.promoted(timeline, epoch, node.wal));
        node.me.applied = None;
        node.wal = Lsn(node.wal.0 + 10);
        let primary = Primary {
            timeline,
            flushed: node.wal,
            standbys,
            open: false,
        };
        node.me.postgres = Postgres::Primary(primary);
    }

    fn stream(&mut self, name: &NodeName, leader: NodeName, lineage: Lineage, end: Lsn) {
        let node = self.nodes.get_mut(name).expect("a known node");
        node.wal = end;
        node.me.data = DataDir::Ready(SYSTEM);
        node.me.lineage = Some(lineage);
        node.me.postgres = Postgres::Standby(Standby {
            upstream: Some(leader),
            streaming: true,
            received: end,
            replayed: end,
            open: true,
            ..Standby::default()
        });
    }
}

fn name_of(name: &str) -> NodeName {
    NodeName::new(name).expect("a node name")
}

fn fresh(name: NodeName) -> NodeView {
    NodeView {
        name,
        data: DataDir::Empty,
        postgres: Postgres::Down { leftovers: 0 },
        lineage: None,
        lease: None,
        held: None,
        job: None,
        contact: Contact::default(),
        applied: None,
        storage: Storage::Healthy,
        registered: false,
        promised_at: None,
        down_since: None,
        clean_stop: false,
        on_disk: None,
        may_not_found: None,
        start_failures: 0,
        stream_broken: None,
        stream_says: None,
        rewound: false,
        errand: None,
        source: None,
        unwatched: None,
        barred: None,
        nostream: false,
    }
}

fn member(me: &NodeView) -> Member {
    Member {
        host: String::new(),
        port: 0,
        api_url: String::new(),
        state: match &me.postgres {
            Postgres::Standby(_) => NodeState::Standby,
            _ => NodeState::Init,
        },
        position: Lsn::ZERO,
        timeline: Timeline(0),
        unfit: (!matches!(me.data, DataDir::Ready(_))).then(|| "it has no data".to_owned()),
        ties: ha::Ties::default(),
    }
}
