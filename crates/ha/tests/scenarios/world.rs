//! A world where everything that is decided succeeds at once, for stories that a person can read.

#[path = "acting.rs"]
mod acting;

use ha::{
    Cluster, ClusterView, Contact, DataDir, Decision, Epoch, Errand, Instant, Lsn, Member,
    NodeName, NodeRecord, NodeState, NodeView, Postgres, Remote, Storage, Switchover, SyncMode,
    SystemId, Timeline, Walsender, decide,
};
use std::collections::BTreeMap;
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
    /// Its Postgres begins to start, and no more.
    stalls: bool,
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
            ["stall", name] => self.node_mut(name).stalls = true,
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
                node.me.on_disk = node.me.on_disk.map(|_| node.wal);
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
                stalls: false,
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
            stalls: false,
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
