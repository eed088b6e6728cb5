//! Connections: bounded in number, in time for a header, in the length of a header, and in age.
//!
//! **Invariant:** no crowd of connections from one address keeps a health check from another out.
//!
//! It knows sockets and hyper, and nothing of what is asked.

use crate::clock::now;
use crate::gate::Arrival;
use crate::options::Options;
use crate::router::{self, Context};
use crate::tls::{Certificate, FIRST_BYTE};
use axum::Router;
use ha::Instant;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Strangers;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many connections are served at once; one more takes the place of the oldest of the most crowded address.
const CONNECTIONS_MAX: usize = 256;
/// How long a request's header may take to arrive; an idle connection ends after it too.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged.
const SEND_DEADLINE_MS: u32 = 10_000;
/// The longest header.
const HEADER_LENGTH_MAX: usize = 16 << 10;
/// A connection older than this is ended after its present answer, streams included: whoever wants more comes back.
/// Longer than the longest wait that can be asked for.
const AGE_MAX: Duration = Duration::from_secs(3700);
/// How often the log says that connections are closed to make room.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long answers under way may still take when the server stops.
const GRACE: Duration = Duration::from_millis(500);

/// The REST server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    router: Router,
    context: Arc<Context>,
    places: Arc<Strangers>,
    said_crowded: Arc<Mutex<Option<Instant>>>,
}

impl Api {
    pub fn new(options: Options) -> Self {
        let context = Arc::new(Context::new(options));
        Self {
            router: router::router(Arc::clone(&context)),
            context,
            places: Arc::new(Strangers::new(CONNECTIONS_MAX)),
            said_crowded: Arc::default(),
        }
    }

    /// Serves one accepted connection until it ends. The caller has made sure that it is no peer of the store.
    pub async fn serve_connection(&self, stream: TcpStream) {
        let from = stream.peer_addr().map(|address| address.ip());
        let from = from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut place = self.places.enter(from);
        self.context.connections.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            () = self.welcome(stream, from) => {}
            () = place.displaced() => self.say_crowded(),
        }
        self.context.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Not for each of a flood.
    fn say_crowded(&self) {
        let now = now();
        let mut said = self
            .said_crowded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|last| now.since(last) >= SAY_AGAIN) {
            *said = Some(now);
            tracing::warn!(
                limit = CONNECTIONS_MAX,
                "too many REST connections: those that have been open longest are closed"
            );
        }
    }

    /// HTTP or HTTPS, as the first byte says.
    async fn welcome(&self, stream: TcpStream, from: IpAddr) {
        // A small answer shall not wait for an acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        // Who takes no answers is gone, or means harm; without it a few could hold all the room.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, SEND_DEADLINE_MS);
        let Some(certificate) = &self.context.options.certificate else {
            return self.serve(stream, self.arrival(from)).await;
        };
        let mut first = [0];
        let seen = tokio::time::timeout(HEADER_DEADLINE, stream.peek(&mut first)).await;
        if !matches!(seen, Ok(Ok(1))) {
            return;
        }
        if first[0] != FIRST_BYTE {
            let arrival = Arrival {
                misplaced: !certificate.allows_plain_http(),
                ..self.arrival(from)
            };
            return self.serve(stream, arrival).await;
        }
        if let Some((stream, certified)) = certificate.accept(stream).await {
            let arrival = Arrival {
                certified,
                ..self.arrival(from)
            };
            self.serve(stream, arrival).await;
        }
    }

    fn arrival(&self, from: IpAddr) -> Arrival {
        let certificate = self.context.options.certificate.as_ref();
        Arrival {
            context: Arc::clone(&self.context),
            from,
            certified: false,
            verify: certificate.map(Certificate::verify).unwrap_or_default(),
            misplaced: false,
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        arrival: Arrival,
    ) {
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(arrival.clone());
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .max_buf_size(HEADER_LENGTH_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = tokio::time::sleep(AGE_MAX) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(HEADER_DEADLINE, connection)
                    .await
                    .unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            // What a client does wrong is its own affair.
            tracing::debug!(%error, "a REST connection ended early");
        }
    }

    /// Accepts connections until `shutdown` is done.
    pub async fn listen(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let api = self.clone();
                    connections.spawn(async move { api.serve_connection(stream).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a REST connection");
                    // No file descriptors left, most likely: let some connections end.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, rest).await;
    }
}
