//! The few lines of HTTP/1.1 that a test needs: one request, one answer, one deadline.

use anyhow::{Context, Result, bail};
use api::client::{Client, Method, Question};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server said.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {:?}", self.body))
    }
}

/// `method path` at `address` (host:port), with a JSON body if one is given.
pub async fn request(
    method: &str,
    address: &str,
    path: &str,
    body: Option<&str>,
    bearer: Option<&str>,
    deadline: Duration,
) -> Result<Answer> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        let token = bearer.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let body = body.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            token.unwrap_or_default(),
            body.len(),
        );
        stream.write_all(head.as_bytes()).await?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await?;
        parse(&String::from_utf8_lossy(&raw))
    };
    match tokio::time::timeout(deadline, talk).await {
        Ok(answer) => answer.with_context(|| format!("{method} http://{address}{path}")),
        Err(_) => bail!("{method} http://{address}{path}: no answer within {deadline:?}"),
    }
}

/// The same by HTTPS.
pub(crate) async fn request_by_https(
    client: &Client,
    method: Method,
    address: &str,
    path: &str,
    body: Option<&str>,
    bearer: Option<&str>,
    deadline: Duration,
) -> Result<Answer> {
    let authorization = bearer.map(|token| format!("Bearer {token}"));
    let question = Question {
        method,
        url: &format!("https://{address}{path}"),
        authorization: authorization.as_deref(),
        body: body.map(|body| body.as_bytes().to_vec()),
        limit: deadline,
    };
    let said = client.ask(question).await;
    let said = said.with_context(|| format!("https://{address}{path}"))?;
    Ok(Answer {
        status: said.status,
        body: String::from_utf8_lossy(&said.body).into_owned(),
    })
}

fn parse(raw: &str) -> Result<Answer> {
    let (head, body) = raw
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Answer { status, body })
}

fn unchunk(mut rest: &str) -> Result<String> {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).context("chunk size")?;
        if size == 0 {
            break;
        }
        whole.push_str(after.get(..size).context("a chunk is cut off")?);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_chunked_answers_are_read() {
        let plain = parse("HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\n{}").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (503, "{}"));
        let chunked = parse(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
        )
        .unwrap();
        assert_eq!(chunked.body, "abcd");
    }
}
