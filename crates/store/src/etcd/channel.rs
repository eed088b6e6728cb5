//! One connection to one member of etcd: gRPC over HTTP/2.
//!
//! **Invariant:** a call that fails says whether it left this process.
//! It knows how messages are framed and errors are told, not what they mean.

use super::failure::{Failure, Status};
use super::proto::Answer;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::HeaderMap;
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// More than a cluster's keys ever are.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// A stream's orders that wait to be sent: it gives few, and far between.
const ORDERS_MAX: usize = 4;

/// A method, as gRPC names it in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(pub(super) &'static str);

/// A connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    sender: SendRequest<Outgoing>,
    scheme: &'static str,
    /// `host:port`.
    member: Arc<str>,
}

/// What a call carries beside its message.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) token: Option<&'a str>,
    /// No answer is waited for longer; `None`: a stream.
    pub(super) until: Option<Instant>,
}

impl Channel {
    /// Begins HTTP/2. The connection is driven by a task on the current runtime.
    pub(super) async fn open(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
        member: &str,
    ) -> Result<Self, hyper::Error> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(16 << 10);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        let shown = member.to_owned();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(member = shown, %error, "a connection to etcd ended");
            }
        });
        Ok(Self {
            sender,
            scheme,
            member: member.into(),
        })
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether the other one is a clone of this.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.member, &other.member)
    }

    /// One message there, one message back.
    pub(super) async fn ask<A: Answer>(
        &self,
        call: Call<'_>,
        question: &impl Message,
    ) -> Result<A, Failure> {
        let body = Outgoing::Whole(Some(framed(question)));
        let until = call.until;
        let mut messages = self.send(call, body).await?;
        let answering = async {
            let answer = messages.next::<A>().await?;
            answer.ok_or_else(|| self.lost("it answered nothing"))
        };
        let answer = within(until, answering).await;
        let answer = answer.unwrap_or_else(|| Err(self.lost("no answer in time")))?;
        // What is left are the trailers; a stream that is dropped before them would be reset.
        let _ = within(until, messages.rest()).await;
        Ok(answer)
    }

    /// Many messages both ways.
    pub(super) async fn stream(
        &self,
        call: Call<'_>,
        first: &impl Message,
    ) -> Result<(Orders, Messages), Failure> {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let orders = Orders(orders);
        orders.give(first);
        let messages = self.send(call, Outgoing::Open(queue)).await?;
        Ok((orders, messages))
    }

    async fn send(&self, call: Call<'_>, body: Outgoing) -> Result<Messages, Failure> {
        let request = self.request(&call, body)?;
        let mut sender = self.sender.clone();
        match within(call.until, sender.ready()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(self.unsent(&error)),
            None => return Err(self.unsent(&"the connection takes nothing more")),
        }
        let response = match within(call.until, sender.try_send_request(request)).await {
            Some(Ok(response)) => response,
            Some(Err(mut failed)) => {
                let unsent = failed.take_message().is_some();
                let error = failed.into_error();
                return Err(if unsent {
                    self.unsent(&error)
                } else {
                    self.lost(&error.to_string())
                });
            }
            None => return Err(self.lost("no answer in time")),
        };
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            // No gRPC server, or something between us.
            return Err(self.lost(&format!("it answered with HTTP status {}", head.status)));
        }
        if let Some(failure) = self.status(&head.headers) {
            return Err(failure);
        }
        Ok(Messages {
            body,
            buffer: BytesMut::new(),
            member: Arc::clone(&self.member),
        })
    }

    fn request(&self, call: &Call<'_>, body: Outgoing) -> Result<Request<Outgoing>, Failure> {
        let uri = Uri::builder()
            .scheme(self.scheme)
            .authority(&*self.member)
            .path_and_query(call.method.0)
            .build();
        let mut request = Request::post(uri.map_err(|error| self.unsent(&error))?)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // A member that knows no leader says so, instead of letting us wait.
            .header("hasleader", "true");
        if let Some(token) = call.token {
            request = request.header("token", token);
        }
        if let Some(until) = call.until {
            let left = until.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1)).as_millis();
            request = request.header("grpc-timeout", format!("{left}m"));
        }
        request.body(body).map_err(|error| self.unsent(&error))
    }

    fn status(&self, headers: &HeaderMap) -> Option<Failure> {
        status(headers, &self.member)
    }

    fn unsent(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::NotSent(format!("etcd at {}: {error}", self.member))
    }

    fn lost(&self, why: &str) -> Failure {
        Failure::NoAnswer(format!("etcd at {}: {why}", self.member))
    }
}

/// `None`: it took too long.
async fn within<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => timeout_at(until, future).await.ok(),
        None => Some(future.await),
    }
}

/// The error that trailers tell of, if any.
fn status(headers: &HeaderMap, member: &str) -> Option<Failure> {
    let code = headers.get("grpc-status")?;
    // A code that is no number is no success either.
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    let code = code.unwrap_or(u32::MAX);
    let message = headers.get("grpc-message").map(|text| text.as_bytes());
    (code != 0).then(|| {
        Failure::Status(Status {
            code,
            message: unescaped(message.unwrap_or_default()),
            member: member.to_owned(),
        })
    })
}

/// `%41` means `A`.
fn unescaped(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Length and bytes, not compressed.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// Where a stream's orders are given. Dropped, it ends our side of the stream.
#[derive(Debug)]
pub(super) struct Orders(mpsc::Sender<Bytes>);

impl Orders {
    /// An order that does not fit is forgotten: the connection takes nothing, which the silence will show.
    pub(super) fn give(&self, order: &impl Message) {
        let _ = self.0.try_send(framed(order));
    }
}

/// The messages of an answer.
#[derive(Debug)]
pub(super) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    member: Arc<str>,
}

impl Messages {
    /// The next message; `None` when the stream ended well.
    pub(super) async fn next<A: Answer>(&mut self) -> Result<Option<A>, Failure> {
        let lost = |member: &str, why: &dyn std::fmt::Display| {
            Failure::NoAnswer(format!("etcd at {member}: {why}"))
        };
        loop {
            match self.take() {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let decoded = A::decode(message);
                    return decoded.map(Some).map_err(|bad| lost(&self.member, &bad));
                }
                Err(why) => return Err(lost(&self.member, &why)),
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| lost(&self.member, &error))?;
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers()
                        && let Some(failure) = status(&trailers, &self.member)
                    {
                        return Err(failure);
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, &'static str> {
        let Some(mut head) = self.buffer.get(..5) else {
            return Ok(None);
        };
        if head.get_u8() != 0 {
            return Err("a compressed message, which nobody asked for");
        }
        let length = head.get_u32() as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err("a message that is too large");
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    async fn rest(&mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

/// A request's body.
#[derive(Debug)]
enum Outgoing {
    Whole(Option<Bytes>),
    Open(mpsc::Receiver<Bytes>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(data) => Poll::Ready(data.take()),
            Self::Open(queue) => queue.poll_recv(context),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |it| it.len() as u64))
            }
            Self::Open(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_errors_are_read() {
        assert_eq!(unescaped(b"etcdserver: no leader"), "etcdserver: no leader");
        assert_eq!(unescaped(b"100%25 %C3%A4%"), "100% \u{e4}%");
        let headers = |code: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", code.parse().expect("a value"));
            headers
        };
        assert!(status(&headers("0"), "m").is_none());
        assert!(status(&HeaderMap::new(), "m").is_none());
        for odd in ["14", "-1", "x"] {
            let failure = status(&headers(odd), "m").expect("a failure");
            assert!(!failure.had_no_effect(), "{odd}");
        }
    }
}
