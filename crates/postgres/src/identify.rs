//! IDENTIFY_SYSTEM over the private socket: the timeline that a standby replays, which no SQL function tells.
//!
//! It speaks just enough of the protocol for one question: peer authentication, a simple query, one row.
//!
//! **Invariant:** lengths that the server sends are checked before anything is allocated.

use crate::error::PostgresError;
use ha::{Lsn, SystemId, Timeline};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::UnixStream;

/// Answers of this command are tiny.
const MESSAGE_MAX: usize = 64 * 1024;
/// Holds a whole answer, which comes as five messages.
const BUFFER: usize = 512;

/// What the server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system_id: SystemId,
    /// Of the last replayed record, on a standby.
    pub timeline: Timeline,
    pub flushed: Lsn,
}

/// A replication connection that asks one question, again and again.
#[derive(Debug)]
pub(crate) struct Identifier {
    stream: BufStream<UnixStream>,
}

impl Identifier {
    pub(crate) async fn open(
        socket: &Path,
        user: &str,
        limit: Duration,
    ) -> Result<Self, PostgresError> {
        let opened = tokio::time::timeout(limit, Self::open_unlimited(socket, user)).await;
        opened.unwrap_or(Err(PostgresError::Timeout {
            doing: "identify the system",
            after: limit,
        }))
    }

    async fn open_unlimited(socket: &Path, user: &str) -> Result<Self, PostgresError> {
        let failed = |e| PostgresError::file("connect to", socket, e);
        let stream = UnixStream::connect(socket).await.map_err(failed)?;
        let stream = BufStream::with_capacity(BUFFER, BUFFER, stream);
        let mut this = Self { stream };
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        for text in [
            "user",
            user,
            "replication",
            "true",
            "application_name",
            "standfast",
            "",
        ] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        this.send(None, &body).await.map_err(failed)?;
        loop {
            match this.receive().await? {
                (b'R', body) if body.as_slice() == [0, 0, 0, 0] => {}
                (b'R', body) => return Err(unexpected(format!("authentication {body:?}"))),
                (b'Z', _) => return Ok(this),
                (b'E', body) => return Err(unexpected(error_text(&body))),
                _ => {}
            }
        }
    }

    pub(crate) async fn ask(&mut self, limit: Duration) -> Result<Identity, PostgresError> {
        let asked = tokio::time::timeout(limit, self.ask_unlimited()).await;
        asked.unwrap_or(Err(PostgresError::Timeout {
            doing: "identify the system",
            after: limit,
        }))
    }

    async fn ask_unlimited(&mut self) -> Result<Identity, PostgresError> {
        self.send(Some(b'Q'), b"IDENTIFY_SYSTEM\0")
            .await
            .map_err(|e| PostgresError::file("write to", Path::new("the private socket"), e))?;
        let mut answer = None;
        loop {
            match self.receive().await? {
                (b'D', body) => answer = identity(&body),
                (b'Z', _) => {
                    return answer.ok_or_else(|| unexpected("no row".to_owned()));
                }
                (b'E', body) => return Err(unexpected(error_text(&body))),
                _ => {}
            }
        }
    }

    async fn send(&mut self, tag: Option<u8>, body: &[u8]) -> std::io::Result<()> {
        let mut message: Vec<u8> = tag.into_iter().collect();
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        self.stream.write_all(&message).await?;
        self.stream.flush().await
    }

    async fn receive(&mut self) -> Result<(u8, Vec<u8>), PostgresError> {
        let failed = |e| PostgresError::file("read from", Path::new("the private socket"), e);
        let tag = self.stream.read_u8().await.map_err(failed)?;
        let length = self.stream.read_u32().await.map_err(failed)? as usize;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(unexpected(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await.map_err(failed)?;
        Ok((tag, body))
    }
}

fn unexpected(answer: String) -> PostgresError {
    PostgresError::Answer {
        doing: "identify the system",
        answer,
    }
}

/// The row of IDENTIFY_SYSTEM: systemid, timeline, xlogpos, dbname.
fn identity(body: &[u8]) -> Option<Identity> {
    let mut rest = body.get(2..)?;
    let mut fields = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            fields.push("");
            rest = tail;
            continue;
        };
        fields.push(std::str::from_utf8(tail.get(..length)?).ok()?);
        rest = tail.get(length..)?;
    }
    Some(Identity {
        system_id: SystemId(fields.first()?.parse().ok()?),
        timeline: Timeline(fields.get(1)?.parse().ok()?),
        flushed: fields.get(2)?.parse().ok()?,
    })
}

/// The message of an ErrorResponse.
fn error_text(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let message = fields
        .filter_map(|field| field.strip_prefix(b"M"))
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(message).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_and_garbage_is_not() {
        let mut body = 4_u16.to_be_bytes().to_vec();
        for text in ["77", "3", "0/3000060"] {
            body.extend_from_slice(&i32::try_from(text.len()).unwrap().to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        body.extend_from_slice(&(-1_i32).to_be_bytes());
        let read = identity(&body).unwrap();
        assert_eq!((read.system_id, read.timeline), (SystemId(77), Timeline(3)));
        assert_eq!(read.flushed, Lsn(0x300_0060));
        for end in 0..body.len() - 4 {
            assert_eq!(identity(&body[..end]).filter(|_| end < 24), None, "{end}");
        }
        assert_eq!(identity(&[0, 1, 127, 255, 255, 255]), None);
    }
}
