//! The same store from a process that is no member: the command line, a proxy.
//!
//! **Invariant:** as for members: what is tried again has not happened, or makes no difference twice.
//! It keeps no state but the views that it was asked for, and the address that last answered as leader.

use crate::answers::{self, Attempt, done, may_repeat, outcome};
use crate::kv::{LeaseId, Outcome, Result, Snapshot, Store, StoreError, Txn, View};
use crate::lock;
use crate::peer::message::{Refusal, Request, Response};
use crate::peer::pool::{Identity, Pool};
use crate::peer::tls::Tls;
use crate::raft::refusal;
use crate::secret::Secret;
use crate::state::{Answer, Command};
use crate::views::advance;
use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(30);
const READ_ATTEMPT: Duration = Duration::from_millis(400);
/// How long a member may hold back its answer while there is no news.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a cluster is, and how to be let in.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// `host:port` of members; one that answers is enough.
    pub addresses: Vec<String>,
    pub cluster: String,
    pub secret: Secret,
    pub request_timeout: Duration,
    pub handshake_timeout: Duration,
    /// As the members have it.
    pub tls: Option<Tls>,
}

impl RemoteOptions {
    pub fn new(addresses: Vec<String>, cluster: impl Into<String>, secret: Secret) -> Self {
        Self {
            addresses,
            cluster: cluster.into(),
            secret,
            request_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
            tls: None,
        }
    }
}

/// A client of the built-in store. Clones share their connections.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    request_timeout: Duration,
    /// Every address known; the first is asked first.
    addresses: Mutex<Vec<String>>,
}

impl RemoteStore {
    /// Connects to nobody yet. Must be called in a runtime.
    pub fn new(options: RemoteOptions) -> Self {
        if let Some(tls) = &options.tls {
            tls.watch();
        }
        let identity = Identity {
            cluster: options.cluster,
            secret: options.secret,
            tls: options.tls,
            handshake_timeout: options.handshake_timeout,
        };
        let shared = Shared {
            pool: Pool::new(Arc::new(identity)),
            request_timeout: options.request_timeout,
            addresses: Mutex::new(options.addresses),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    async fn write(&self, command: Command) -> Result<Answer> {
        let mut sent_before = false;
        let mut ask = self.shared.ask();
        loop {
            let request = Request::Write(command.clone());
            let attempt = match self.shared.attempt(&ask, ask.left(), request).await {
                Ok(Response::Answer(answer)) => Attempt::Answered(answer),
                Ok(other) => {
                    Attempt::Refused(Refusal::Unknown(format!("an odd answer: {other:?}")))
                }
                Err(refusal) => Attempt::Refused(refusal),
            };
            let refusal = match attempt {
                Attempt::Answered(answer) => {
                    return Ok(answers::of_repeated(&command, answer, sent_before));
                }
                Attempt::Refused(refusal) => refusal,
            };
            let unknown = matches!(refusal, Refusal::Unknown(_));
            sent_before |= unknown;
            let stop = unknown && !may_repeat(&command);
            if let Some(error) = self.shared.next(&mut ask, refusal, stop).await {
                return Err(answers::after(error, sent_before));
            }
        }
    }
}

/// A call under way.
struct Ask {
    deadline: Instant,
    address: String,
    /// How many addresses in a row were of no use.
    failures: usize,
    denied: usize,
}

impl Ask {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Shared {
    fn ask(&self) -> Ask {
        let address = lock(&self.addresses).first().cloned().unwrap_or_default();
        let deadline = Instant::now() + self.request_timeout;
        Ask {
            deadline,
            address,
            failures: 0,
            denied: 0,
        }
    }

    async fn attempt(
        &self,
        ask: &Ask,
        limit: Duration,
        request: Request,
    ) -> std::result::Result<Response, Refusal> {
        let response = self
            .pool
            .call_within(limit, &ask.address, None, request)
            .await;
        if response.is_ok() {
            self.prefer(&ask.address);
        }
        response.map_err(refusal)
    }

    fn prefer(&self, address: &str) {
        let mut addresses = lock(&self.addresses);
        match addresses.iter().position(|known| known == address) {
            Some(0) => {}
            Some(at) => addresses[..=at].rotate_right(1),
            None => addresses.insert(0, address.to_owned()),
        }
    }

    /// Who was of no use is asked last from now on.
    fn avoid(&self, address: &str) {
        let mut addresses = lock(&self.addresses);
        if let Some(at) = addresses.iter().position(|known| known == address) {
            addresses[at..].rotate_left(1);
        }
    }

    /// Chooses where to ask next, or says that it is over.
    async fn next(&self, ask: &mut Ask, refusal: Refusal, stop: bool) -> Option<StoreError> {
        let told = match &refusal {
            Refusal::NotLeader {
                leader: Some(leader),
            } => Some(leader.address.clone()),
            _ => None,
        };
        let denied = matches!(refusal, Refusal::Denied(_));
        let error = answers::error(refusal);
        let known = lock(&self.addresses).clone();
        ask.denied += usize::from(denied);
        // One member with another secret is that member's trouble; all of them are ours.
        let hopeless = if denied {
            ask.denied >= known.len()
        } else {
            !error.is_retryable()
        };
        if told.is_none() {
            self.avoid(&ask.address);
        }
        if stop || hopeless || known.is_empty() {
            return Some(error);
        }
        ask.failures += 1;
        ask.address = match told.filter(|leader| *leader != ask.address) {
            Some(leader) => leader,
            None => {
                let at = known.iter().position(|known| *known == ask.address);
                known[at.map_or(0, |at| (at + 1) % known.len())].clone()
            }
        };
        // Whoever asks again asks elsewhere: a machine that is gone says nothing until the time is over.
        if ask.left().is_zero() {
            return Some(error);
        }
        if ask.failures >= 2 {
            tokio::time::sleep(PAUSE.min(ask.left())).await;
        }
        if ask.left().is_zero() {
            Some(error)
        } else {
            None
        }
    }

    /// Keeps one view up to date for as long as somebody looks at it.
    async fn follow(self: Arc<Self>, prefix: String, view: watch::Sender<Arc<Snapshot>>) {
        let mut after = None;
        let mut ask = self.ask();
        loop {
            ask.deadline = Instant::now() + PATIENCE + READ_ATTEMPT;
            let request = Request::Watch {
                prefix: prefix.clone(),
                after,
                patience: PATIENCE,
            };
            let asked = tokio::select! {
                asked = self.pool.call_within(ask.left(), &ask.address, None, request) => asked,
                () = view.closed() => return,
            };
            match asked {
                Ok(Response::Watch(news)) => {
                    ask.failures = 0;
                    if let Some(page) = news {
                        let snapshot = Snapshot::from(page);
                        after = Some(after.unwrap_or(0).max(snapshot.revision));
                        advance(&view, snapshot);
                    }
                }
                Ok(_) | Err(_) => {
                    let refusal = asked
                        .err()
                        .map_or(Refusal::NotLeader { leader: None }, refusal);
                    ask.failures = ask.failures.max(1);
                    let asked = ask.address.clone();
                    let over = self.next(&mut ask, refusal, false);
                    let over = tokio::select! {
                        over = over => over,
                        () = view.closed() => return,
                    };
                    let all = lock(&self.addresses).len().max(1);
                    let is_elsewhere = ask.address != asked && !ask.failures.is_multiple_of(all);
                    if over.is_some() && !is_elsewhere {
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot> {
        let mut ask = self.shared.ask();
        loop {
            let request = Request::Read {
                prefix: prefix.to_owned(),
            };
            let limit = ask.left().min(READ_ATTEMPT);
            let refusal = match self.shared.attempt(&ask, limit, request).await {
                Ok(Response::Read(page)) => return Ok(page.into()),
                Ok(other) => Refusal::Unreachable(format!("an odd answer: {other:?}")),
                Err(Refusal::Unknown(why)) => Refusal::Unreachable(why),
                Err(refusal) => refusal,
            };
            if let Some(error) = self.shared.next(&mut ask, refusal, false).await {
                return Err(error);
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        outcome(self.write(Command::Commit(txn)).await?)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        loop {
            let lease = answers::draw_lease();
            match self.write(Command::Grant { lease, ttl }).await? {
                Answer::LeaseTaken => {}
                answer => return done(answer).map(|()| lease),
            }
        }
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        done(self.write(Command::Renew(lease)).await?)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        done(self.write(Command::Revoke(lease)).await?)
    }

    fn view(&self, prefix: &str) -> View {
        let (sender, view) = watch::channel(Arc::default());
        tokio::spawn(Arc::clone(&self.shared).follow(prefix.to_owned(), sender));
        view
    }
}
