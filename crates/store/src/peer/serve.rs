//! The answering side of a connection.
//!
//! **Invariant:** nobody gets an answer before both sides have proved that they know the secret.
//! **Invariant:** strangers are few and have little time; a member's questions at once are bounded.

use super::frame::{Receiver, Sender};
use super::handshake::{self, HandshakeError};
use super::limit::Sparingly;
use super::message::{Envelope, Refusal, Reply, Request, Response, decode, encode};
use super::pool::{Identity, tune};
use super::strangers::Strangers;
use super::tls::{self, Denial, Wire};
use crate::raft::types::NodeId;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

const STRANGERS_MAX: usize = 64;
const QUESTIONS_MAX: usize = 256;

/// What stands behind a listener.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The number of the member that answers.
    fn id(&self) -> NodeId;

    fn answer(
        &self,
        request: Request,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<Response, Refusal>> + Send;
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) identity: Arc<Identity>,
    strangers: Strangers,
    denials: Sparingly,
    closing: watch::Sender<bool>,
}

impl Door {
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            strangers: Strangers::new(STRANGERS_MAX),
            denials: Sparingly::default(),
            closing: watch::channel(false).0,
        }
    }

    /// Ends all connections; no new one is let in.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    pub(crate) async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Serves one connection until it ends.
    pub(crate) async fn serve(&self, stream: TcpStream, answer: Arc<impl Answer>) {
        // One that is gone already has no address.
        let from = stream
            .peer_addr()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        let peer = from.to_string();
        let served = async {
            let (sender, receiver) = match self.welcome(stream, from).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.complain(&peer, &error);
                    return;
                }
            };
            if let Err(error) = converse(sender, receiver, answer).await {
                tracing::debug!(%peer, %error, "a peer's connection broke");
            }
        };
        tokio::select! {
            () = served => {}
            () = self.closed() => {}
        }
    }

    async fn welcome(
        &self,
        stream: TcpStream,
        from: IpAddr,
    ) -> Result<(Sender, Receiver), HandshakeError> {
        let mut stranger = self.strangers.enter(from);
        let identity = &self.identity;
        let meeting = async {
            let wire = prepare(stream, identity).await?;
            handshake::server(wire, &identity.cluster, &identity.secret).await
        };
        tokio::select! {
            met = timeout(identity.handshake_timeout, meeting) => {
                met.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            }
            () = stranger.displaced() => {
                Err(io::Error::other("too many strangers at once").into())
            }
        }
    }

    fn complain(&self, peer: &str, error: &HandshakeError) {
        if !error.is_denial() {
            tracing::debug!(%peer, %error, "a stranger did not complete the handshake");
        } else if self.denials.may_speak(peer) {
            tracing::warn!(%peer, %error, "a peer was denied");
        }
    }
}

/// Takes the magic and begins TLS, if that is what comes and is wanted here.
async fn prepare(mut stream: TcpStream, identity: &Identity) -> Result<Wire, HandshakeError> {
    tune(&stream);
    handshake::expect_magic(&mut stream).await?;
    let mut first = [0];
    let is_tls = stream.peek(&mut first).await? > 0 && first == [tls::FIRST_BYTE];
    match &identity.tls {
        Some(tls) if is_tls => tls.accept(stream).await,
        None if is_tls => {
            tls::turn_away(stream).await;
            Err(HandshakeError::Tls(Denial::OnlyTls))
        }
        Some(tls) if tls.is_required() => Err(handshake::turn_away(tls::plain(stream)).await),
        Some(_) | None => Ok(tls::plain(stream)),
    }
}

async fn converse(
    mut sender: Sender,
    mut receiver: Receiver,
    answer: Arc<impl Answer>,
) -> io::Result<()> {
    let (replies, mut queue) = mpsc::channel::<Vec<u8>>(64);
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    // Answers still being worked out end with the connection.
    let mut work = JoinSet::new();
    let writing = async move {
        while let Some(payload) = queue.recv().await {
            sender.send(&payload).await?;
        }
        Ok(())
    };
    let reading = async {
        while let Some(payload) = receiver.receive().await? {
            let (
                Envelope {
                    number,
                    to,
                    request,
                },
                body,
            ) = decode(&payload)?;
            let body = body.to_vec();
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            let (answer, replies) = (Arc::clone(&answer), replies.clone());
            while work.try_join_next().is_some() {}
            work.spawn(async move {
                let result = if to.is_some_and(|to| to != answer.id()) {
                    Err(Refusal::WrongMember { here: answer.id() })
                } else {
                    answer.answer(request, body).await
                };
                drop(place);
                match encode(&Reply { number, result }, &[]) {
                    // The connection may be over by now.
                    Ok(payload) => drop(replies.send(payload).await),
                    Err(error) => tracing::error!(%error, "an answer cannot be encoded"),
                }
            });
        }
        Ok(())
    };
    tokio::select! {
        result = writing => result,
        result = reading => result,
    }
}
