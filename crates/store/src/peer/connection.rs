//! An open connection to a peer, shared by everybody who asks it something.
//!
//! **Invariant:** an answer goes to the question with its number, or nowhere.
//! **Invariant:** a question is reported as not sent only if no byte of it can have arrived.

use super::frame::{Receiver, Sender};
use super::handshake;
use super::message::{Envelope, Refusal, Reply, Request, Response, decode, encode};
use crate::lock;
use crate::raft::types::NodeId;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A connection on which questions wait and nothing has come in for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Why a call has no answer of its peer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer has not seen it.
    #[error("{0}")]
    NotSent(String),
    /// The peer may have seen it.
    #[error("{0}")]
    Lost(String),
    /// The peer does not accept us, or we do not accept it.
    #[error("{0}")]
    Denied(String),
    #[error("refused by the peer: {0:?}")]
    Refused(Refusal),
}

type Waiting = oneshot::Sender<Result<Response, Refusal>>;

/// The calling side.
#[derive(Debug)]
pub(crate) struct Connection {
    outgoing: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    closed: AtomicBool,
    waiting: Mutex<BTreeMap<u64, (Instant, Waiting)>>,
    last_heard: Mutex<Instant>,
}

impl Connection {
    pub(crate) fn new((sender, receiver): handshake::Connection) -> Self {
        let shared = Arc::new(Shared {
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            waiting: Mutex::new(BTreeMap::new()),
            last_heard: Mutex::new(Instant::now()),
        });
        let (outgoing, queue) = mpsc::channel(64);
        let tasks = [
            tokio::spawn(write_loop(sender, queue, Arc::clone(&shared))),
            tokio::spawn(read_loop(receiver, Arc::clone(&shared))),
        ];
        Self {
            outgoing,
            shared,
            tasks,
        }
    }

    /// Whether it is worth asking something here.
    pub(crate) fn is_usable(&self) -> bool {
        if self.shared.closed.load(Ordering::Acquire) {
            return false;
        }
        let waiting = lock(&self.shared.waiting);
        let Some(oldest) = waiting.values().map(|(since, _)| *since).min() else {
            return true;
        };
        let heard = *lock(&self.shared.last_heard);
        oldest.max(heard).elapsed() < SILENCE_MAX
    }

    /// Asks, and waits as long as the caller does.
    pub(crate) async fn call(
        &self,
        to: Option<NodeId>,
        request: Request,
        body: &[u8],
    ) -> Result<Response, CallError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let payload = encode(
            &Envelope {
                number,
                to,
                request,
            },
            body,
        )
        .map_err(|error| CallError::NotSent(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let question = Question::ask(&self.shared, number, answer);
        if self.outgoing.send(payload).await.is_err() {
            return Err(CallError::NotSent("the connection is closed".into()));
        }
        let answer = answered.await;
        drop(question);
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(refusal)) => Err(CallError::Refused(refusal)),
            Err(_) => Err(CallError::Lost(
                "the connection broke before the answer".into(),
            )),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A question forgets itself when its caller gives up.
struct Question<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Question<'a> {
    fn ask(shared: &'a Shared, number: u64, answer: Waiting) -> Self {
        lock(&shared.waiting).insert(number, (Instant::now(), answer));
        // The loops may have ended in between; then nobody would ever answer.
        if shared.closed.load(Ordering::Acquire) {
            shared.close();
        }
        Self { shared, number }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        lock(&self.shared.waiting).remove(&self.number);
    }
}

impl Shared {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        lock(&self.waiting).clear();
    }
}

async fn write_loop(mut sender: Sender, mut queue: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    while let Some(payload) = queue.recv().await {
        if let Err(error) = sender.send(&payload).await {
            tracing::debug!(%error, "a peer connection broke while writing");
            break;
        }
    }
    shared.close();
}

async fn read_loop(mut receiver: Receiver, shared: Arc<Shared>) {
    if let Err(error) = read(&mut receiver, &shared).await {
        tracing::debug!(%error, "a peer connection broke while reading");
    }
    shared.close();
}

async fn read(receiver: &mut Receiver, shared: &Shared) -> io::Result<()> {
    while let Some(payload) = receiver.receive().await? {
        *lock(&shared.last_heard) = Instant::now();
        let (reply, _): (Reply, _) = decode(&payload)?;
        let asked = lock(&shared.waiting).remove(&reply.number);
        if let Some((_, answer)) = asked {
            // The caller may have given up.
            let _ = answer.send(reply.result);
        }
    }
    Ok(())
}
