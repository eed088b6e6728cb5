//! A client that speaks messages, and tells a session all of them.

use crate::server::Server;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::{CStr, CString};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::backend::{self, Authentication, Message as Said};
use wire::frontend::{self, Message as Asked, SaslInitialResponse};
use wire::scram::{Binding, Client, Keys, SCRAM_SHA_256};
use wire::startup::{Packet, StartupMessage, Version};
use wire::{Hidden, Limits, List, Origin, Session, Stage, Step, Violation};

/// Nothing here takes so long on any machine.
const LONG: Duration = Duration::from_secs(30);

/// How to prove who one is.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    Password(&'static str),
    Keys(Keys),
}

pub(crate) struct Line {
    stream: UnixStream,
    buffer: Vec<u8>,
    framer: backend::Framer,
    pub(crate) session: Session,
    /// What the server has agreed to, and its cancel key's length.
    pub(crate) version: Version,
    pub(crate) secret_bytes: usize,
}

impl Line {
    pub(crate) fn open(
        server: &Server,
        user: &CStr,
        proof: &Proof,
        version: Version,
        more: &[(&CStr, &CStr)],
    ) -> Result<Self> {
        let stream = server.connect()?;
        stream.set_read_timeout(Some(LONG))?;
        let mut line = Self {
            stream,
            buffer: Vec::new(),
            framer: backend::Framer::new(Stage::Authentication, Limits::default()),
            session: Session::starting(Limits::default()),
            version,
            secret_bytes: 0,
        };
        let mut room = Vec::new();
        let given = [(c"user", user), (c"database", c"postgres")];
        let packet = Packet::Startup(StartupMessage {
            version,
            parameters: List::write(given.into_iter().chain(more.iter().copied()), &mut room),
        });
        let mut out = Vec::new();
        packet.encode(&mut out)?;
        line.stream.write_all(&out)?;
        line.authenticate(proof)?;
        line.until("ready", |line| line.session.unanswered().next().is_none())?;
        Ok(line)
    }

    pub(crate) fn trusted(server: &Server) -> Result<Self> {
        Self::open(
            server,
            c"postgres",
            &Proof::Password(""),
            Version::V3_0,
            &[],
        )
    }

    /// Answers what the server asks for until it lets us in.
    fn authenticate(&mut self, proof: &Proof) -> Result<()> {
        let mut client = Some(Client::begin(
            Binding::Impossible,
            "fyko+d2lbbFgONRv9qkxdawL",
        )?);
        let mut answer = None;
        loop {
            let mut out = Vec::new();
            let mut inside = false;
            let mut agreed = None;
            let mut failure = None;
            let (client, answer) = (&mut client, &mut answer);
            self.receive(|message| {
                let step = (|| -> Result<()> {
                    match message {
                        Said::Authentication(Authentication::Ok) => inside = true,
                        Said::Authentication(Authentication::CleartextPassword) => {
                            let Proof::Password(password) = proof else {
                                bail!("keys are no password");
                            };
                            let text = CString::new(*password)?;
                            Asked::Password(Hidden(text.as_bytes_with_nul())).encode(&mut out)?;
                        }
                        Said::Authentication(Authentication::Sasl(offered)) => {
                            ensure!(offered.iter().any(|it| it == SCRAM_SHA_256));
                            let first = client.as_ref().context("begun")?.first();
                            let response = SaslInitialResponse {
                                mechanism: SCRAM_SHA_256,
                                response: Some(Hidden(&first)),
                            };
                            response.encode(&mut out)?;
                        }
                        Said::Authentication(Authentication::SaslContinue(data)) => {
                            let client = client.take().context("asked twice")?;
                            let challenge = client.challenged(data, 100_000)?;
                            let keys = match proof {
                                Proof::Keys(keys) => keys.clone(),
                                Proof::Password(text) => Keys::derive(
                                    text.as_bytes(),
                                    challenge.salt(),
                                    challenge.iterations(),
                                ),
                            };
                            let made = challenge.answer(&keys);
                            Asked::Password(Hidden(&made.message)).encode(&mut out)?;
                            *answer = Some(made);
                        }
                        Said::Authentication(Authentication::SaslFinal(data)) => {
                            answer.as_ref().context("answered")?.check(data)?;
                        }
                        Said::NegotiateProtocolVersion { newest, .. } => agreed = Some(newest),
                        Said::ErrorResponse(fields) => bail!("{:?}", fields.message()),
                        other => bail!("{other:?} before we are in"),
                    }
                    Ok(())
                })();
                failure = step.err();
            })?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            self.version = agreed.unwrap_or(self.version);
            self.stream.write_all(&out)?;
            if inside {
                self.framer.enter(Stage::Conversation);
                return Ok(());
            }
        }
    }

    /// Sends a message, unless the session refuses it.
    pub(crate) fn send(&mut self, message: &Asked<'_>) -> Result<Result<(), Violation>> {
        let mut out = Vec::new();
        message.encode(&mut out)?;
        let mut framer = frontend::Framer::new(Stage::Conversation, Limits::default());
        let Step::Message(frame) = framer.next(&out)? else {
            bail!("{message:?} is no frame");
        };
        let told = self.session.sent(&frame, Origin::Client);
        if told.is_ok()
            && let Err(error) = self.stream.write_all(&out)
        {
            // The server has ended the connection, and what it said is still to be read.
            ensure!(is_closed(&error), error);
        }
        Ok(told)
    }

    /// Waits for one message and tells it to the session.
    pub(crate) fn receive(&mut self, look: impl FnOnce(Said<'_>)) -> Result<()> {
        loop {
            let step = self.framer.next(&self.buffer)?;
            let taken = step.taken();
            if let Step::Message(frame) = step {
                let message = frame.message()?;
                if let Said::BackendKeyData(key) = message {
                    let Hidden(secret) = key.secret;
                    self.secret_bytes = secret.len();
                }
                let told = self.session.received(&frame);
                look(message);
                self.buffer.drain(..taken);
                told?;
                return Ok(());
            }
            let mut chunk = [0; 4096];
            // With a timeout set, any signal to the process interrupts it.
            let read = match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            ensure!(read > 0, "the server has closed the connection");
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }

    /// Receives until the session says so.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !done(self) {
            ensure!(begun.elapsed() < LONG, "not in time: {what}");
            self.receive(|_| {}).with_context(|| what.to_owned())?;
        }
        Ok(())
    }

    /// Receives until the server has closed, whatever it says.
    pub(crate) fn drain(&mut self) {
        let refused = |error: &anyhow::Error| error.is::<Violation>();
        while self.receive(|_| {}).as_ref().err().is_none_or(refused) {}
    }

    /// The first column of a query's rows.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<Vec<Vec<u8>>> {
        let text = CString::new(sql)?;
        self.send(&Asked::Query(&text))??;
        let mut rows = Vec::new();
        while self.session.unanswered().next().is_some() {
            self.receive(|message| {
                if let Said::DataRow(values) = message {
                    rows.push(values.iter().next().flatten().unwrap_or_default().to_vec());
                }
            })?;
        }
        Ok(rows)
    }

    /// Ends the connection; the server must have nothing left to say.
    pub(crate) fn end(mut self) -> Result<()> {
        self.send(&Asked::Terminate)??;
        self.ended()
    }

    /// The server closes, and says nothing before it does.
    pub(crate) fn ended(mut self) -> Result<()> {
        let mut rest = std::mem::take(&mut self.buffer);
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            ensure!(is_closed(&error), error);
        }
        ensure!(rest.is_empty(), "left over: {}", rest.escape_ascii());
        Ok(())
    }
}

/// A server that closes with requests unread resets the connection.
fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}
