//! A cluster of three nodes and a monitor in a store, and a server for any of them.

use api::errand::Errand;
use api::{Api, Backlog, BasicAuth, Membership, NotTaken, Options, Served, StoreMember, Token, v1};
use async_trait::async_trait;
use ha::quorum::{Setting, SyncRecord};
use ha::{
    Contact, DataDir, Decision, Epoch, Instant, Lease, Lineage, Lsn, NodeName, NodeState, NodeView,
    Postgres, Primary, Standby, Storage, SystemId, Timeline, Walsender,
};
use reqwest::{Client, Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::layout::{
    EpochRecord, Keys, MemberExtra, MemberRecord, NodeEntry, SyncValue, read_cluster,
};
use store::{MemoryStore, Store, Txn};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub(crate) const SECRET: &[u8] = b"a secret of this test only";
pub(crate) const SYSTEM: SystemId = SystemId(7_710_775_333_835_992_131);
const END: Lsn = Lsn(0x4045948);

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a node name")
}

pub(crate) fn now() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Instant(nanos.try_into().expect("after the boot"))
}

/// The store's content, and how to make it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) keys: Keys,
}

impl World {
    /// `a` leads epoch 7 on timeline 2, `b` and `c` stream and one of them must acknowledge; `monitor` watches.
    pub(crate) async fn three() -> Self {
        let world = Self {
            store: MemoryStore::new(),
            keys: Keys::new("service", "demo"),
        };
        let keys = &world.keys;
        let sync = SyncRecord::of(Setting::quorum(
            name("a"),
            ["b", "c"].map(name).into_iter().collect(),
            1,
        ));
        let mut txn = Txn::new()
            .put(keys.initialize(), SYSTEM.to_string())
            .put(keys.leader(), "a")
            .put(keys.epoch(), text(&EpochRecord::new(Epoch(7), name("a"))))
            .put(keys.sync(), text(&SyncValue::from(&sync)))
            .put(keys.status(), text(&json!({"optime": END.0})))
            .put(keys.config(), text(&json!({"ttl": 3, "postgresql": {"parameters": {"max_connections": 50}}})))
            .put(keys.history(), r#"[[1,67393352,"no recovery target specified","2026-11-21T23:48:09.267375+00:00","a"]]"#);
        for (id, node) in [(1, "a"), (2, "b"), (3, "c")] {
            let state = if node == "a" {
                NodeState::Primary
            } else {
                NodeState::Standby
            };
            txn = txn
                .put(keys.node(&name(node)), text(&entry(id, node)))
                .put(keys.member(&name(node)), text(&member(id, state)));
        }
        let monitor = NodeEntry {
            witness: true,
            id: 0,
            ..entry(9, "monitor")
        };
        txn = txn.put(keys.node(&name("monitor")), text(&monitor));
        world.write(txn).await;
        world
    }

    /// Nothing but an empty store.
    pub(crate) fn empty() -> Self {
        Self {
            store: MemoryStore::new(),
            keys: Keys::new("service", "demo"),
        }
    }

    pub(crate) async fn write(&self, txn: Txn) {
        assert!(
            self.store
                .commit(txn)
                .await
                .expect("the store answers")
                .is_committed()
        );
    }

    pub(crate) async fn set_member(&self, node: &str, state: NodeState) {
        let id = if node == "a" {
            1
        } else if node == "b" {
            2
        } else {
            3
        };
        let key = self.keys.member(&name(node));
        self.write(Txn::new().put(key, text(&member(id, state))))
            .await;
    }

    pub(crate) async fn value(&self, key: &str) -> Option<String> {
        let snapshot = self.store.read(key).await.expect("the store answers");
        snapshot.value(key).map(str::to_owned)
    }

    /// What the agent of `node` would publish.
    pub(crate) async fn picture(&self, node: &str) -> Served {
        let snapshot = self
            .store
            .read(self.keys.prefix())
            .await
            .expect("the store answers");
        let mut served = Served::new("demo", name(node));
        served.version = "4.1.5".to_owned();
        served.cluster = Some(read_cluster(&self.keys, &snapshot).expect("readable"));
        served.snapshot = Arc::new(snapshot);
        served.server_version = 150_018;
        served.postmaster_start_time = Some("2026-11-21 23:46:58.047674+00:00".to_owned());
        served.system_id = Some(SYSTEM);
        served.loop_at = now();
        served.witness = node == "monitor";
        if !served.witness {
            served.me = Some(node_view(node));
            let state = if node == "a" {
                NodeState::Primary
            } else {
                NodeState::Standby
            };
            served.decision = Some(Decision {
                actions: Vec::new(),
                reason: "the leader of epoch 7, commits need a with 1 of (b, c)".to_owned(),
                state,
                assigned: state,
                rule: "leader",
            });
        }
        if node == "a" {
            served.replication = vec![api::ReplicationRow {
                usename: "rep".to_owned(),
                application_name: "b".to_owned(),
                client_addr: Some("127.0.0.1".to_owned()),
                state: "streaming".to_owned(),
                sync_state: "quorum".to_owned(),
                sync_priority: 1,
            }];
        }
        served
    }

    /// A server that shows `node`'s picture of this moment.
    pub(crate) async fn serve(&self, node: &str) -> Server {
        Server::start(self, self.picture(node).await).await
    }
}

pub(crate) fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain values")
}

pub(crate) fn entry(id: u64, node: &str) -> NodeEntry {
    NodeEntry {
        id,
        host: "127.0.0.1".to_owned(),
        port: 7100 + u16::try_from(id).expect("small"),
        api_url: format!("http://127.0.0.1:{}/patroni", 7000 + id),
        identity: format!("installation-of-{node}"),
        priority: 50,
        quorum: true,
        maintenance: false,
        dropped: false,
        witness: false,
        never_ran: false,
        priority_by_tag: false,
        quorum_by_tag: false,
    }
}

pub(crate) fn member(id: u64, state: NodeState) -> MemberRecord {
    let (role, patroni_state) = state.patroni();
    MemberRecord {
        conn_url: format!("postgres://127.0.0.1:{}/postgres", 7100 + id),
        api_url: format!("http://127.0.0.1:{}/patroni", 7000 + id),
        state: patroni_state.to_owned(),
        role: role.to_owned(),
        version: "4.1.5".to_owned(),
        xlog_location: END,
        timeline: Timeline(2),
        replication_state: (role == "replica").then(|| "streaming".to_owned()),
        standfast: Some(MemberExtra {
            host: "127.0.0.1".to_owned(),
            port: 7100 + u16::try_from(id).expect("small"),
            state,
            assigned: state,
            reason: format!("a {state}"),
            rule: "steady".to_owned(),
            unfit: None,
            stream_says: None,
            troubles: Vec::new(),
            identity: "x".to_owned(),
            server_version: 150_018,
            ties: ha::Ties::default(),
            remembers: None,
        }),
        ..MemberRecord::default()
    }
}

/// The leader `a` with a lease of a minute, or a standby of it.
pub(crate) fn node_view(node: &str) -> NodeView {
    let walsender = Walsender {
        streaming: true,
        flushed: END,
        seen: now(),
    };
    let leads = node == "a";
    let postgres = if leads {
        Postgres::Primary(Primary {
            timeline: Timeline(2),
            flushed: END,
            standbys: BTreeMap::from([(name("b"), walsender), (name("c"), walsender)]),
            open: true,
        })
    } else {
        Postgres::Standby(Standby {
            upstream: Some(name("a")),
            streaming: true,
            received: END,
            replayed: END,
            open: true,
            ..Standby::default()
        })
    };
    NodeView {
        name: name(node),
        data: DataDir::Ready(SYSTEM),
        postgres,
        lineage: Some(Lineage::founded(Timeline(2), Epoch(7))),
        lease: leads.then(|| Lease {
            epoch: Epoch(7),
            deadline: now().plus(Duration::from_secs(60)),
            by_members: false,
        }),
        held: None,
        job: None,
        contact: Contact::default(),
        applied: None,
        storage: Storage::Healthy,
        registered: true,
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

/// Store members that answer from a list.
#[derive(Debug, Default)]
pub(crate) struct ThreeVoters {
    pub(crate) removed: Mutex<Vec<String>>,
}

#[async_trait]
impl Membership for ThreeVoters {
    async fn members(&self) -> Result<Vec<StoreMember>, String> {
        let removed = self.removed.lock().expect("not poisoned").clone();
        let voter = |node: &str| StoreMember {
            name: node.to_owned(),
            address: format!("{node}:7000"),
            voter: true,
            leader: node == "b",
            reachable: Some(true),
        };
        Ok(["a", "b", "monitor"]
            .iter()
            .filter(|node| !removed.contains(&(**node).to_owned()))
            .map(|node| voter(node))
            .collect())
    }

    async fn remove(&self, node: &str) -> Result<(), String> {
        self.removed
            .lock()
            .expect("not poisoned")
            .push(node.to_owned());
        Ok(())
    }
}

/// A running API. Ends when dropped.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) client: Client,
    pub(crate) members: Arc<ThreeVoters>,
    /// Plays the agent for what is asked of it.
    pub(crate) errands: tokio::sync::Mutex<mpsc::Receiver<Errand>>,
    pub(crate) reload: Arc<Notify>,
    pub(crate) log: Backlog,
    publish: watch::Sender<Arc<Served>>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub(crate) async fn start(world: &World, served: Served) -> Self {
        Self::start_with(world, served, None, api::Gate::default()).await
    }

    /// With HTTPS, or with rules of who may change something.
    pub(crate) async fn start_with(
        world: &World,
        served: Served,
        certificate: Option<api::Certificate>,
        gate: api::Gate,
    ) -> Self {
        let witness = served.witness;
        let (publish, receiver) = watch::channel(Arc::new(served));
        let members = Arc::new(ThreeVoters::default());
        let (errands, asked) = mpsc::channel(8);
        let reload = Arc::new(Notify::new());
        let log = Backlog::default();
        let options = Options {
            errands: (!witness).then_some(errands),
            reload: Arc::clone(&reload),
            certificate,
            gate,
            certificates: Vec::new(),
            keys: world.keys.clone(),
            store: Arc::new(world.store.clone()),
            token: Token::derive(SECRET),
            basic_auth: Some(BasicAuth::new("admin", "secret")),
            served: receiver,
            holding: None,
            log: Some(log.clone()),
            membership: Some(members.clone()),
            not_taken: NotTaken {
                parameter: |name, _| (name == "fsync").then_some("it is not yours"),
                pg_hba: |line, major| {
                    (!line.starts_with("host")).then(|| format!("nothing that {major} knows"))
                },
                major: 15,
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(Api::new(options).listen(listener, async move {
            let _ = stopped.await;
        }));
        Self {
            address,
            client: Client::new(),
            members,
            errands: tokio::sync::Mutex::new(asked),
            reload,
            log,
            publish,
            _stop: stop,
        }
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Served)) {
        self.publish.send_modify(|served| {
            let mut next = (**served).clone();
            change(&mut next);
            *served = Arc::new(next);
        });
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client
            .get(self.url(path))
            .send()
            .await
            .expect("an answer")
    }

    pub(crate) async fn code(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    pub(crate) async fn document<T: DeserializeOwned>(&self, path: &str) -> T {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        let text = response.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// With the token.
    pub(crate) async fn order(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, text) = self.order_text(method, path, &body).await;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, value)
    }

    /// With a body that need not be JSON; none if it is empty.
    pub(crate) async fn order_text(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        let token = Token::derive(SECRET).header();
        let mut request = self
            .client
            .request(method, self.url(path))
            .header("authorization", token);
        if !body.is_empty() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.text().await.expect("a body"))
    }

    pub(crate) async fn refused(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> (u16, v1::Error) {
        let (status, value) = self.order(method, path, body).await;
        let error = serde_json::from_value(value.clone())
            .unwrap_or_else(|error| panic!("{path}: {error}: {value}"));
        (status, error)
    }
}

/// Waits for a condition, at most five seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within 5 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
