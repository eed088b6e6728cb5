//! Connections: bounded in number, in time for a header, in the length of a header, and in age.
//!
//! It knows sockets and hyper, and nothing of what is asked.

use crate::options::Options;
use crate::router::{self, Context};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many connections are served at once.
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
/// How long answers under way may still take when the server stops.
const GRACE: Duration = Duration::from_millis(500);

/// The REST server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    router: Router,
    context: Arc<Context>,
    room: Arc<Semaphore>,
}

impl Api {
    pub fn new(options: Options) -> Self {
        let context = Arc::new(Context::new(options));
        Self {
            router: router::router(Arc::clone(&context)),
            context,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// Serves one accepted connection until it ends. The caller has made sure that it is no peer of the store.
    pub async fn serve_connection(&self, stream: TcpStream) {
        let Ok(_room) = self.room.try_acquire() else {
            refuse(&stream);
            return;
        };
        self.context.connections.fetch_add(1, Ordering::Relaxed);
        self.serve(stream).await;
        self.context.connections.fetch_sub(1, Ordering::Relaxed);
    }

    async fn serve(&self, stream: TcpStream) {
        // A small answer shall not wait for an acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        // Who takes no answers is gone, or means harm; without it a few could hold all the room.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, SEND_DEADLINE_MS);
        let service = TowerToHyperService::new(self.router.clone());
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

/// Says that there is no room, if the socket takes it at once.
fn refuse(stream: &TcpStream) {
    let answer =
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.try_write(answer);
    tracing::warn!(
        limit = CONNECTIONS_MAX,
        "too many REST connections, one was refused"
    );
}
