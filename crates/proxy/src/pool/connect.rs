//! Opening a connection to the primary and logging in.
//!
//! **Invariant:** a connection that comes out of here is stamped, and its server has said that it is
//! no standby.

use super::quota::{Counted, Full};
use super::refusals::Kind as Refusal;
use super::server::{Mirror, Parameters, Server, limits};
use super::{Pool, Said, Startup, Welcome};
use crate::auth::{Answers, Broken, Credential, Login, login, next_message};
use crate::cancel::Target;
use crate::gate::Over;
use crate::net::{DialError, Guise, Inbox, Outbox, Stream, dial};
use crate::tls::{ServerTls, SslMode};
use crate::topology::{At, Kind};
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::backend::{Fields, Framer, Message, Tag};
use wire::frontend;
use wire::startup::{Packet, StartupMessage, Version};
use wire::{Hidden, List, Session, Stage};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the socket can't be held")]
    Socket(#[source] io::Error),
    #[error("no connection within {0:?}")]
    Late(Duration),
    #[error("the server ended the login")]
    Broken(#[from] Broken),
    #[error("what the server sent is no message that belongs there")]
    Nonsense,
    #[error("the server is a standby")]
    Standby,
    #[error(transparent)]
    Over(#[from] Over),
    #[error(transparent)]
    Full(#[from] Full),
    /// PostgreSQL's own words, as they came: the body of an ErrorResponse.
    #[error("the server refused: {message}")]
    Refused {
        message: String,
        body: Vec<u8>,
        for_now: bool,
        /// By its rules of access.
        by_rule: bool,
    },
    #[error("can't log in")]
    Login(#[from] crate::auth::LoginError),
}

impl ConnectError {
    /// Whether the same may work in a moment.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_retryable(),
            Self::Broken(Broken::Frame(_)) | Self::Nonsense | Self::Socket(_) | Self::Login(_) => {
                false
            }
            Self::Late(_) | Self::Broken(_) | Self::Standby | Self::Over(_) | Self::Full(_) => true,
            Self::Refused { for_now, .. } => *for_now,
        }
    }
}

/// Connects with TLS as it is wanted, and logs in.
pub(crate) async fn connect(
    pool: &Pool,
    tls: &Arc<ServerTls>,
    startup: &Arc<Startup>,
    credential: &Credential,
    at: &At,
    counted: Counted,
) -> Result<Box<Server>, ConnectError> {
    let counted = Arc::new(counted);
    let attempt = |guise| {
        let (tls, counted) = (Arc::clone(tls), Arc::clone(&counted));
        connect_as(pool, tls, guise, startup, credential, at, counted)
    };
    let connected = match attempt(tls.guise()).await {
        // Turned away by a rule, maybe for the lack of TLS.
        Err(ConnectError::Refused { by_rule: true, .. }) if tls.mode == SslMode::Allow => {
            attempt(Guise::Secured).await
        }
        connected => connected,
    };
    log(pool, at, &connected);
    connected
}

/// A client reads the server's words, or waits; who looks after the proxy reads the log.
fn log(pool: &Pool, at: &At, connected: &Result<Box<Server>, ConnectError>) {
    let refusals = &pool.vain.refusals;
    let (message, body, for_now) = match connected {
        Ok(_) => return refusals.forget(&at.address),
        Err(ConnectError::Refused {
            message,
            body,
            for_now,
            ..
        }) => (message, body, *for_now),
        Err(_) => return,
    };
    let Some(sqlstate) = Fields::beginning(body).sqlstate() else {
        return;
    };
    let kind = match (&sqlstate.0[..2], for_now) {
        (b"28", false) => Refusal::Lasting,
        // Who may log in, and how many.
        (b"28" | b"53", _) => Refusal::Passing,
        // It starts or stops, or it is what the client wants that is not there.
        _ => return,
    };
    if refusals.note(&at.address, message, kind, Instant::now()) {
        tracing::warn!(
            user = &*pool.user,
            database = &*pool.database,
            server = at.address,
            sqlstate = &*String::from_utf8_lossy(&sqlstate.0),
            error = message,
            "the server refuses the proxy's login"
        );
    }
}

async fn connect_as(
    pool: &Pool,
    tls: Arc<ServerTls>,
    guise: Guise,
    startup: &Arc<Startup>,
    credential: &Credential,
    at: &At,
    counted: Arc<Counted>,
) -> Result<Box<Server>, ConnectError> {
    let mut stream = dial(&at.address, &tls, guise).await?;
    pool.keepalive().watch(&stream);
    let closer = Arc::new(stream.closer().map_err(ConnectError::Socket)?);
    pool.vigil.watch(&closer);
    let guise = match stream.is_encrypted() {
        true => Guise::Secured,
        false => Guise::Plain,
    };
    let end_point = stream.server_end_point();
    let stamp = at.gate.stamp(at.epoch, closer)?;
    let packet = first_packet(pool, startup, at.kind)?;
    stream.write_all(&packet).await.map_err(Broken::Io)?;
    let mut opening = Opening {
        stream,
        inbox: Inbox::default(),
        framer: Framer::new(Stage::Authentication, limits()),
        session: Session::starting(limits()),
        parameters: Parameters::new(),
        key: (0, Vec::new()),
    };
    let login = Login {
        user: &pool.user,
        credential,
        cache: pool.keys(),
        end_point: end_point.as_deref(),
    };
    opening.authenticate(&login).await?;
    opening.until_ready().await?;
    let mirror = Mirror::new(opening.session, opening.parameters);
    let said = Said {
        epoch: at.epoch,
        address: at.address.as_str().into(),
        generation: pool.generation(),
    };
    let mut server = Box::new(Server {
        stream: opening.stream,
        inbox: opening.inbox,
        outbox: Outbox::default(),
        framer: opening.framer,
        welcome: Welcome::new(&mirror.parameters, said),
        mirror,
        stamp,
        epoch: at.epoch,
        counted,
        generation: pool.generation(),
        startup: Arc::clone(startup),
        target: Arc::new(Target {
            address: at.address.clone(),
            tls,
            guise,
            process_id: opening.key.0,
            secret: opening.key.1,
            since: std::time::SystemTime::now(),
        }),
        applied: Arc::clone(&pool.unset),
        is_deaf: false,
        has_ended: false,
    });
    if at.kind == Kind::Primary {
        refuse_standby(&mut server).await?;
    }
    Ok(server)
}

fn first_packet(pool: &Pool, startup: &Startup, kind: Kind) -> Result<Vec<u8>, ConnectError> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| ConnectError::Nonsense);
    let mut named = vec![
        (text(b"user")?, text(pool.user.as_bytes())?),
        (text(b"database")?, text(pool.database.as_bytes())?),
    ];
    for (name, value) in startup {
        named.push((text(name)?, text(value)?));
    }
    let read_only: &[u8] = b"default_transaction_read_only";
    // A standby's, too: what is proven of a reader must not end with a promotion.
    if kind != Kind::Primary && !startup.iter().any(|(name, _)| **name == *read_only) {
        named.push((text(read_only)?, text(b"on")?));
    }
    let borrowed = named
        .iter()
        .map(|(name, value)| (name.as_c_str(), value.as_c_str()));
    let mut room = Vec::new();
    let packet = Packet::Startup(StartupMessage {
        version: Version::V3_0,
        parameters: List::<(&CStr, &CStr)>::write(borrowed, &mut room),
    });
    let mut bytes = Vec::new();
    packet
        .encode(&mut bytes)
        .map_err(|_| ConnectError::Nonsense)?;
    Ok(bytes)
}

struct Opening {
    stream: Stream,
    inbox: Inbox,
    framer: Framer,
    session: Session,
    parameters: Parameters,
    key: (u32, Vec<u8>),
}

impl Opening {
    /// The next message, told to the session. An error of the server's is ours.
    async fn hear(&mut self) -> Result<(Tag, Vec<u8>), ConnectError> {
        let (tag, bytes) =
            next_message(&mut self.stream, &mut self.inbox, &mut self.framer).await?;
        if tag == Tag::ErrorResponse {
            return Err(refused(&bytes[5..]));
        }
        Ok((tag, bytes))
    }

    fn tell(&mut self, bytes: &[u8], stage: Stage) -> Result<(), ConnectError> {
        let mut framer = Framer::new(stage, limits());
        let Ok(wire::Step::Message(frame)) = framer.next(bytes) else {
            return Err(ConnectError::Nonsense);
        };
        let received = self.session.received(&frame);
        received.map(drop).map_err(|_| ConnectError::Nonsense)
    }

    async fn authenticate(&mut self, of: &Login<'_>) -> Result<(), ConnectError> {
        let mut state = Answers::default();
        loop {
            let (tag, bytes) = self.hear().await?;
            self.tell(&bytes, Stage::Authentication)?;
            let message = Message::parse(tag, &bytes[5..]);
            let asked = match message.map_err(|_| ConnectError::Nonsense)? {
                Message::Authentication(asked) => asked,
                Message::NoticeResponse(_) => continue,
                _ => return Err(ConnectError::Nonsense),
            };
            let mut out = Vec::new();
            if login(asked, of, &mut state, &mut out).await? {
                self.framer.enter(Stage::Conversation);
                return Ok(());
            }
            self.stream.write_all(&out).await.map_err(Broken::Io)?;
        }
    }

    async fn until_ready(&mut self) -> Result<(), ConnectError> {
        loop {
            let (tag, bytes) = self.hear().await?;
            self.tell(&bytes, Stage::Conversation)?;
            let message = Message::parse(tag, &bytes[5..]);
            match message.map_err(|_| ConnectError::Nonsense)? {
                Message::ParameterStatus { name, value } => {
                    let (name, value) = (name.to_bytes(), value.to_bytes());
                    self.parameters.insert(name.into(), value.into());
                }
                Message::BackendKeyData(key) => {
                    let Hidden(secret) = key.secret;
                    self.key = (key.process_id, secret.to_vec());
                }
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
        }
    }
}

fn refused(body: &[u8]) -> ConnectError {
    let fields = Fields::beginning(body);
    let sqlstate = fields.sqlstate().map(|state| state.0);
    // Its words go on to a client, which looks for these.
    if sqlstate.is_none() || fields.severity().is_none() || fields.message().is_none() {
        return ConnectError::Nonsense;
    }
    // A primary that is not open yet turns everybody out by its rules of access, which an unknown
    // user is told in the same code.
    let by_rule = fields
        .find(b'R')
        .is_some_and(|it| it == c"ClientAuthentication");
    let for_now = match sqlstate.as_ref() {
        Some(b"57P01" | b"57P02" | b"57P03" | b"53300") => true,
        Some(b"28000") => by_rule,
        _ => false,
    };
    let message = fields.message().unwrap_or_default();
    ConnectError::Refused {
        message: message.to_string_lossy().into_owned(),
        body: body.to_vec(),
        for_now,
        by_rule,
    }
}

/// Since PostgreSQL 14 it says so itself; an older one is asked.
async fn refuse_standby(server: &mut Server) -> Result<(), ConnectError> {
    match server
        .mirror
        .parameters
        .get(&b"in_hot_standby"[..])
        .map(AsRef::as_ref)
    {
        Some(b"off") => Ok(()),
        Some(_) => Err(ConnectError::Standby),
        None => {
            let question = frontend::Message::Query(
                c"DO $$ BEGIN IF pg_catalog.pg_is_in_recovery() THEN RAISE 'standby'; END IF; END $$",
            );
            let lost = |_| ConnectError::Broken(Broken::Ended);
            server.send(&question).map_err(lost)?;
            match server.finish().await {
                Ok(()) => Ok(()),
                Err(super::Refusal::Error(_)) => Err(ConnectError::Standby),
                Err(super::Refusal::Lost) => Err(ConnectError::Broken(Broken::Ended)),
            }
        }
    }
}
