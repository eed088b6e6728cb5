//! Frames on the wire: a length, a payload, a tag.
//!
//! **Invariant:** no more than the allowed length is ever allocated for a frame, and no payload is
//! handed on before its tag was checked against its place in the sequence.

use super::auth::{Key, Tag, same};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Frames of strangers.
pub(crate) const STRANGER_BYTES_MAX: usize = 1024;
/// Frames of members.
pub(crate) const MEMBER_BYTES_MAX: usize = 16 << 20;

const TAG_BYTES: usize = size_of::<Tag>();

pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The sending half of an authenticated connection.
pub(crate) struct Sender {
    pub(crate) writer: Writer,
    pub(crate) key: Key,
}

/// The receiving half of an authenticated connection.
pub(crate) struct Receiver {
    pub(crate) reader: Reader,
    pub(crate) key: Key,
}

impl Sender {
    pub(crate) async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MEMBER_BYTES_MAX {
            return Err(too_long(payload.len()));
        }
        let tag = self.key.tag(payload);
        let mut frame = Vec::with_capacity(4 + payload.len() + TAG_BYTES);
        frame.extend_from_slice(&length(payload)?);
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&tag);
        self.writer.write_all(&frame).await?;
        self.writer.flush().await
    }
}

impl Receiver {
    /// The next payload; `None` when the other side has closed the connection between two frames.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(payload) = receive(&mut self.reader, MEMBER_BYTES_MAX).await? else {
            return Ok(None);
        };
        let mut tag: Tag = [0; TAG_BYTES];
        self.reader.read_exact(&mut tag).await?;
        if same(&tag, &self.key.tag(&payload)) {
            Ok(Some(payload))
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame's tag is wrong",
            ))
        }
    }
}

/// Sends a frame without a tag, for the handshake.
pub(crate) async fn send(writer: &mut Writer, payload: &[u8]) -> io::Result<()> {
    let mut frame = length(payload)?.to_vec();
    frame.extend_from_slice(payload);
    writer.write_all(&frame).await?;
    writer.flush().await
}

/// Receives a frame without a tag.
pub(crate) async fn receive(reader: &mut Reader, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if reader.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        return Err(too_long(length));
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok(Some(payload))
}

fn length(payload: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(payload.len()).map_err(|_| too_long(payload.len()))?;
    Ok(length.to_be_bytes())
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a frame of {length} bytes is too long"),
    )
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

#[cfg(test)]
mod tests {
    use super::super::auth::Transcript;
    use super::*;
    use crate::secret::Secret;

    fn key() -> Key {
        let secret = Secret::new(b"a secret of the cluster").expect("long enough");
        let seen = Transcript {
            cluster: "c",
            client_nonce: [1; 32],
            server_nonce: [2; 32],
            binding: None,
        };
        seen.keys(&secret).0
    }

    async fn frames(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut sender = Sender {
            writer: Box::new(near),
            key: key(),
        };
        let mut frames = Vec::new();
        for payload in payloads {
            sender.send(payload).await.expect("sent");
            let mut frame = vec![0; 4 + payload.len() + TAG_BYTES];
            far.read_exact(&mut frame).await.expect("received");
            frames.push(frame);
        }
        frames
    }

    async fn received(bytes: &[u8]) -> Vec<io::Result<Option<Vec<u8>>>> {
        let mut receiver = Receiver {
            reader: Box::new(io::Cursor::new(bytes.to_vec())),
            key: key(),
        };
        let mut all = Vec::new();
        loop {
            let one = receiver.receive().await;
            let more = matches!(one, Ok(Some(_)));
            all.push(one);
            if !more {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn frames_arrive_in_order() {
        let sent = frames(&[b"one", b"", b"three"]).await;
        let got = received(&sent.concat()).await;
        let got: Vec<_> = got.into_iter().map(|one| one.expect("genuine")).collect();
        let expected = [
            Some(b"one".to_vec()),
            Some(vec![]),
            Some(b"three".to_vec()),
            None,
        ];
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn a_replayed_swapped_or_changed_frame_is_refused() {
        let sent = frames(&[b"one", b"two"]).await;
        let mut changed = sent[0].clone();
        changed[5] ^= 1;
        for bytes in [
            [sent[0].clone(), sent[0].clone()].concat(),
            [sent[1].clone(), sent[0].clone()].concat(),
            changed,
        ] {
            let last = received(&bytes).await.pop().expect("at least one");
            assert_eq!(
                last.expect_err("refused").kind(),
                io::ErrorKind::InvalidData
            );
        }
    }

    #[tokio::test]
    async fn an_absurd_length_is_refused_before_anything_is_allocated() {
        let bytes = u32::MAX.to_be_bytes();
        let last = received(&bytes).await.pop().expect("one");
        assert_eq!(
            last.expect_err("refused").kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_error() {
        let sent = frames(&[b"one"]).await;
        for cut in 1..sent[0].len() {
            let last = received(&sent[0][..cut]).await.pop().expect("one");
            assert_eq!(
                last.expect_err("cut").kind(),
                io::ErrorKind::UnexpectedEof,
                "{cut}"
            );
        }
    }
}
