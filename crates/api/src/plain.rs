//! Metrics of what is no node: one text for whoever asks.
//!
//! **Invariant:** few connections at a time, and none for long: who asks slowly keeps nobody else out
//! for longer than that.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const CONNECTIONS_MAX: usize = 32;
/// From the first byte to the last.
const DEADLINE: Duration = Duration::from_secs(5);
/// No file descriptors left, most likely: let some connections end.
const BREATH: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` with `text`, until it is dropped.
pub async fn serve_metrics(
    listener: TcpListener,
    text: impl Fn() -> String + Clone + Send + Sync + 'static,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // It is never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = text.clone();
                tokio::spawn(async move {
                    // Who asks wrongly or too slowly has not got an answer.
                    let _ = tokio::time::timeout(DEADLINE, serve(stream, text)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection for metrics");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, text: impl Fn() -> String) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let is_known = request.uri().path() == "/metrics";
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let (status, body) = match (is_known, is_read) {
            (true, true) => (StatusCode::OK, text()),
            (true, false) => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
            (false, _) => (StatusCode::NOT_FOUND, "only /metrics is here\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
