//! A client that says what it is told to, byte by byte.

use anyhow::{Result, bail, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Of a message, in bytes.
const LONG: u32 = 300_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// As a server: hears a startup packet out, and has no TLS.
pub(crate) async fn hear_startup(stream: &mut TcpStream) -> Result<()> {
    const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
    loop {
        let mut packet = vec![0; usize::try_from(stream.read_u32().await?)? - 4];
        stream.read_exact(&mut packet).await?;
        if !packet.starts_with(&TLS) {
            return Ok(());
        }
        stream.write_all(b"N").await?;
    }
}

pub(crate) struct Raw {
    stream: TcpStream,
}

/// One message: its type and its body.
pub(crate) type Heard = (u8, Vec<u8>);

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        // What is said in pieces arrives in pieces, and at once.
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// The same from a certain address of this machine.
    pub(crate) async fn connect_from(source: [u8; 4], address: SocketAddr) -> Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let stream = timeout(PATIENCE, socket.connect(address)).await??;
        Ok(Self { stream })
    }

    /// Let in as `app`, without being asked for a password.
    pub(crate) async fn logged_in(address: SocketAddr) -> Result<Self> {
        let mut raw = Self::connect(address).await?;
        raw.send(&startup(&[("user", "app"), ("database", "app")]))
            .await?;
        raw.until(b'Z').await?;
        Ok(raw)
    }

    /// Cuts the connection, and whatever the peer says from now on is an error.
    pub(crate) fn reset(self) -> Result<()> {
        self.stream.set_zero_linger()?;
        Ok(())
    }

    /// What the peer refuses to take is its own affair.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        // A peer that has closed has said why, which is read next.
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await?;
        Ok(())
    }

    /// As much as the peer takes within a while: `false`, if that was not all.
    pub(crate) async fn offer(&mut self, bytes: &[u8], within: Duration) -> bool {
        matches!(
            timeout(within, self.stream.write_all(bytes)).await,
            Ok(Ok(()))
        )
    }

    /// The next message; `None`: the connection has ended.
    pub(crate) async fn hear(&mut self) -> Result<Option<Heard>> {
        let mut head = [0; 5];
        match timeout(PATIENCE, self.stream.read_exact(&mut head)).await {
            Err(_) => bail!("nothing was said, and nothing ended"),
            Ok(Err(_)) => return Ok(None),
            Ok(Ok(_)) => {}
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        ensure!(length >= 4, "length {length}");
        if length > LONG {
            // Nobody reads so much here: to its end it goes unlooked at.
            let mut rest = tokio::io::sink();
            let _ = timeout(PATIENCE, tokio::io::copy(&mut self.stream, &mut rest)).await?;
            return Ok(None);
        }
        let mut body = vec![0; usize::try_from(length)? - 4];
        match timeout(PATIENCE, self.stream.read_exact(&mut body)).await? {
            Ok(_) => Ok(Some((head[0], body))),
            Err(_) => Ok(None),
        }
    }

    /// All messages up to the first of a type.
    pub(crate) async fn until(&mut self, tag: u8) -> Result<Vec<Heard>> {
        let mut all = Vec::new();
        while let Some(heard) = self.hear().await? {
            let found = heard.0 == tag;
            all.push(heard);
            if found {
                return Ok(all);
            }
        }
        bail!("it ended before, with {}", told(&all));
    }

    /// What was said until the connection ended: the severity and the code of an error.
    pub(crate) async fn end(&mut self) -> Result<String> {
        let mut all = Vec::new();
        while let Some(heard) = self.hear().await? {
            all.push(heard);
        }
        Ok(told(&all))
    }

    /// The next byte, which is no message.
    pub(crate) async fn byte(&mut self) -> Result<u8> {
        Ok(timeout(PATIENCE, self.stream.read_u8()).await??)
    }
}

/// The last error among messages.
pub(crate) fn told(all: &[Heard]) -> String {
    let mut errors = all.iter().filter(|(tag, _)| *tag == b'E');
    let Some((_, body)) = errors.next_back() else {
        return "nothing".to_owned();
    };
    let field = |key: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find(|field| field.first() == Some(&key));
        String::from_utf8_lossy(found.unwrap_or(b" ?").split_at(1).1).into_owned()
    };
    format!("{} {}", field(b'S'), field(b'C'))
}

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let pairs = parameters.iter().flat_map(|(name, value)| [name, value]);
    let mut body: Vec<u8> = pairs
        .flat_map(|text| [text.as_bytes(), &[0]].concat())
        .collect();
    body.push(0);
    packet(3 << 16, &body)
}

/// A packet of the beginning: a code, and what follows it.
pub(crate) fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A message that says that it is longer than it is.
pub(crate) fn claims(tag: u8, length: i32) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes()].concat()
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), &[0]].concat())
}
