//! A tee between programs and the server, and reading what it has recorded.
//!
//! Bytes are recorded before they are passed on, so that no answer stands before its request.

use crate::server::Server;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use wire::backend::{self, Authentication, Message as Said};
use wire::frontend;
use wire::startup::{First, Opening};
use wire::{Limits, Origin, Session, Stage, Step};

/// Chunks in the order in which they passed; `true` for the client's.
type Chunks = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// What passed on one connection.
#[derive(Debug)]
pub(crate) struct Recording(Vec<(bool, Vec<u8>)>);

/// What was found in it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) asked: usize,
    pub(crate) said: usize,
    /// The types that were seen, client's and server's.
    pub(crate) tags: std::collections::BTreeSet<(bool, u8)>,
}

/// Runs `program` with the port of the tee, and returns what passed on its connections.
pub(crate) fn record(
    server: &Server,
    program: impl FnOnce(u16) -> Result<()>,
) -> Result<Vec<Recording>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let connect = {
        let path = server.directory().join(".s.PGSQL.5432");
        move || UnixStream::connect(&path)
    };
    let accepting = std::thread::spawn(move || -> Result<Vec<(Chunks, [JoinHandle<()>; 2])>> {
        let mut all = Vec::new();
        loop {
            let (client, _) = listener.accept()?;
            // A connection that says nothing but this ends the recording.
            let mut first = [0];
            if client.peek(&mut first)? == 1 && first == [b'!'] {
                return Ok(all);
            }
            let backend = connect()?;
            let chunks = Chunks::default();
            let ways = [
                pass(&chunks, true, client.try_clone()?, backend.try_clone()?),
                pass(&chunks, false, backend, client),
            ];
            all.push((chunks, ways));
        }
    });
    let ran = program(address.port());
    TcpStream::connect(address)?.write_all(b"!")?;
    let connections = accepting
        .join()
        .map_err(|_| anyhow::anyhow!("the tee panicked"))??;
    ran?;
    let mut recordings = Vec::new();
    for (chunks, ways) in connections {
        for way in ways {
            way.join().map_err(|_| anyhow::anyhow!("a way panicked"))?;
        }
        let recorded = std::mem::take(&mut *chunks.lock().unwrap_or_else(PoisonError::into_inner));
        recordings.push(Recording(recorded));
    }
    Ok(recordings)
}

trait Half: Read + Write + Send + 'static {
    fn hang_up(&self);
}

impl Half for TcpStream {
    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Half for UnixStream {
    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

fn pass(chunks: &Chunks, asked: bool, mut from: impl Half, mut to: impl Half) -> JoinHandle<()> {
    let chunks = Arc::clone(chunks);
    std::thread::spawn(move || {
        // Odd, so that messages are cut everywhere.
        let mut chunk = [0; 1021];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            let bytes = chunk[..read].to_vec();
            let mut all = chunks.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((asked, bytes));
            drop(all);
            if to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        from.hang_up();
        to.hang_up();
    })
}

impl Recording {
    /// Reads everything in both directions, checks that it is written again as it was, and
    /// follows it with a session that must end as the server said.
    pub(crate) fn check(&self) -> Result<Found> {
        let limits = Limits {
            held_bytes_max: 4_000,
            ..Limits::default()
        };
        let mut opening = Some(Opening::new());
        let mut declining = false;
        let mut asking = frontend::Framer::new(Stage::Authentication, limits);
        let mut saying = backend::Framer::new(Stage::Authentication, limits);
        let mut session = Session::starting(limits);
        let (mut asked, mut said) = (Vec::new(), Vec::new());
        let mut found = Found::default();
        let mut last_ready = None;
        let mut terminated = false;
        for (is_client, bytes) in &self.0 {
            if *is_client {
                asked.extend_from_slice(bytes);
            } else {
                said.extend_from_slice(bytes);
            }
            if let Some(at_start) = &mut opening {
                if *is_client {
                    match at_start.next(&asked)? {
                        First::Startup(_, taken) => {
                            asked.drain(..taken);
                            opening = None;
                        }
                        First::SslRequest | First::GssEncRequest => {
                            asked.clear();
                            declining = true;
                        }
                        First::Cancel(_) => return Ok(found),
                        First::More { .. } => continue,
                        First::DirectTls => bail!("TLS without asking"),
                    }
                } else if declining {
                    ensure!(said == b"N", "{}", said.escape_ascii());
                    said.clear();
                    at_start.declined();
                    declining = false;
                }
                if opening.is_some() {
                    continue;
                }
            }
            loop {
                let step = asking.next(&asked)?;
                let taken = step.taken();
                match step {
                    Step::Message(frame) => {
                        found.asked += 1;
                        found.tags.insert((true, frame.tag().byte()));
                        terminated |= frame.tag() == frontend::Tag::Terminate;
                        if frame.is_whole() {
                            let message = frame.message()?;
                            again(frame.bytes(), |out| Ok(message.encode(out)?))?;
                        }
                        session.sent(&frame, Origin::Client)?;
                    }
                    Step::Part(_) => {}
                    Step::More { .. } => break,
                }
                asked.drain(..taken);
            }
            loop {
                let step = saying.next(&said)?;
                let taken = step.taken();
                let mut inside = false;
                match step {
                    Step::Message(frame) => {
                        found.said += 1;
                        found.tags.insert((false, frame.tag().byte()));
                        if frame.is_whole() {
                            let message = frame.message()?;
                            again(frame.bytes(), |out| Ok(message.encode(out)?))?;
                            inside = message == Said::Authentication(Authentication::Ok);
                            if let Said::ReadyForQuery(status) = message {
                                last_ready = Some(status);
                            }
                        }
                        let tag = frame.tag();
                        session
                            .received(&frame)
                            .with_context(|| format!("{tag:?} in {session:?}"))?;
                    }
                    Step::Part(_) => {}
                    Step::More { .. } => break,
                }
                if inside {
                    asking.enter(Stage::Conversation);
                    saying.enter(Stage::Conversation);
                }
                said.drain(..taken);
            }
        }
        ensure!(asked.is_empty() && said.is_empty(), "an end without an end");
        if terminated && !session.has_ended() {
            ensure!(
                last_ready == Some(session.transaction_status()),
                "{session:?}"
            );
            ensure!(session.unanswered().count() == 0, "{session:?}");
        }
        Ok(found)
    }
}

fn again(bytes: &[u8], encode: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut out = Vec::new();
    encode(&mut out)?;
    ensure!(
        out == bytes,
        "{} became {}",
        bytes.escape_ascii(),
        out.escape_ascii()
    );
    Ok(())
}
