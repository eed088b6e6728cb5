//! One request to a member's REST interface, by HTTP or HTTPS: what the command line and the agents ask each other with.
//!
//! **Invariant:** every request ends within its limit, and one that fails says whether it may have been received.
//!
//! It doesn't know what is asked, nor whom else one could ask.

pub use certs::{Trust, TrustError, TrustOptions};
pub use hyper::Method;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Members are neighbours.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Asks members. Clones are cheap and believe the same.
#[derive(Clone, Debug, Default)]
pub struct Client {
    trust: Trust,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub method: Method,
    /// `http://HOST:PORT/PATH` or `https://…`
    pub url: &'a str,
    /// The value of the header.
    pub authorization: Option<&'a str>,
    /// JSON.
    pub body: Option<Vec<u8>>,
    /// No answer is waited for longer.
    pub limit: Duration,
}

impl<'a> Question<'a> {
    pub fn get(url: &'a str, limit: Duration) -> Self {
        Self {
            method: Method::GET,
            url,
            authorization: None,
            body: None,
            limit,
        }
    }
}

/// What a member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// What is to be said besides, in clear.
    pub warning: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Nothing was sent: another member may be asked.
    #[error("{0}")]
    NotSent(String),
    /// Who answers by HTTPS is not believed, or does not believe us; nothing was asked.
    #[error("{0}")]
    Unbelieved(String),
    /// It may have been received.
    #[error("{0}")]
    Unknown(String),
}

impl Client {
    pub fn new(trust: Trust) -> Self {
        Self { trust }
    }

    /// # Errors
    /// Nobody answers, or not in time, or by HTTPS somebody who is not believed.
    pub async fn ask(&self, question: Question<'_>) -> Result<Answer, Silence> {
        // Kept out of the futures of all who ask.
        Box::pin(self.connect_and_ask(question)).await
    }

    async fn connect_and_ask(&self, question: Question<'_>) -> Result<Answer, Silence> {
        let until = Instant::now() + question.limit;
        let place = Place::of(question.url).map_err(Silence::NotSent)?;
        let connecting = TcpStream::connect((place.host.as_str(), place.port));
        let stream = match timeout_at(until.min(Instant::now() + CONNECT_TIMEOUT), connecting).await
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Silence::NotSent(error.to_string())),
            Err(_) => return Err(Silence::NotSent("no answer in time".to_owned())),
        };
        let _ = stream.set_nodelay(true);
        if !place.https {
            return converse(stream, &place, question, until).await;
        }
        let told = match timeout_at(until, self.trust.connect(&place.host, stream)).await {
            Ok(Ok(stream)) => converse(stream, &place, question, until).await,
            Ok(Err(error)) => Err(Silence::Unbelieved(error.to_string())),
            Err(_) => Err(Silence::NotSent("no answer in time".to_owned())),
        };
        if told.is_err() {
            // The files may be newer than what was read of them: certificates are renewed under way.
            self.trust.forget();
        }
        told
    }
}

/// Where a URL leads.
struct Place {
    https: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Place {
    fn of(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{url}: neither http:// nor https://")),
        };
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() {
            return Err(format!("{url}: no host"));
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            https,
            host: bare.to_owned(),
            port,
            authority: format!("{host}:{port}"),
            path: path.to_owned(),
        })
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    question: Question<'_>,
    until: Instant,
) -> Result<Answer, Silence> {
    let unsent = |error: &dyn Error| Silence::NotSent(innermost(error));
    let lost = |error: &dyn Error| Silence::Unknown(innermost(error));
    let late = || Silence::Unknown("no answer in time".to_owned());
    let mut request = Request::builder()
        .method(question.method)
        .uri(&place.path)
        .header(header::HOST, &place.authority)
        .header(header::CONNECTION, "close");
    if let Some(authorization) = question.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    if question.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(question.body.unwrap_or_default()));
    let request = request.body(body).map_err(|error| unsent(&error))?;
    let shaking = timeout_at(until, http1::handshake(TokioIo::new(stream)));
    let (mut sender, connection) = shaking
        .await
        .map_err(|_| late())?
        .map_err(|error| unsent(&error))?;
    let talk = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| lost(&error))?;
        let status = response.status().as_u16();
        let warning = response.headers().get(header::WARNING);
        let warning =
            warning.and_then(|value| unquoted(&String::from_utf8_lossy(value.as_bytes())));
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| {
            match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Silence::Unknown("the answer is too long".to_owned()),
                None => lost(error.as_ref()),
            }
        })?;
        let body = body.to_bytes().to_vec();
        Ok(Answer {
            status,
            body,
            warning,
        })
    };
    let driven = async {
        let mut connection = std::pin::pin!(connection);
        let mut talk = std::pin::pin!(talk);
        tokio::select! {
            told = &mut talk => return told,
            // Its error, if there is one, is the talk's as well.
            _ = &mut connection => {}
        }
        talk.await
    };
    timeout_at(until, driven).await.map_err(|_| late())?
}

/// The text of a `Warning`: `299 - "text"`.
fn unquoted(value: &str) -> Option<String> {
    let (_, quoted) = value.split_once('"')?;
    let mut text = String::new();
    let mut rest = quoted.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => text.extend(rest.next()),
            c => text.push(c),
        }
    }
    Some(text)
}

/// The innermost cause says most: `Connection refused (os error 111)`.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_read_as_it_was_quoted() {
        let text = |value| unquoted(value).unwrap_or_default();
        assert_eq!(
            text(r#"299 - "in vain: \"x\" (a\\b)""#),
            r#"in vain: "x" (a\b)"#
        );
        assert_eq!(text(r#"299 - "cut \"#), "cut ");
        assert_eq!(unquoted("299 -"), None);
    }

    #[test]
    fn a_url_names_its_place() {
        for (url, expected) in [
            ("http://10.0.0.1:8008/leader", "false 10.0.0.1 8008 /leader"),
            ("https://db1/patroni?x=1", "true db1 443 /patroni?x=1"),
            ("http://[::1]:7000", "false ::1 7000 /"),
        ] {
            let place = Place::of(url).expect("a place");
            let found = format!(
                "{} {} {} {}",
                place.https, place.host, place.port, place.path
            );
            assert_eq!(found, expected, "{url}");
        }
        for bad in ["", "db1:8008", "ftp://db1/", "https:///path"] {
            assert!(Place::of(bad).is_err(), "{bad}");
        }
    }
}
