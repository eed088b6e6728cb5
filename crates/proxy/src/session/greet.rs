//! The beginning of a connection: what it is for, who is there, and the greeting.
//!
//! **Invariant:** who has not proved who they are costs a bounded time and a bounded number of bytes.

use super::alarm::Alarm;
use super::closing::Place;
use super::{Closing, Conversation, Ending};
use crate::anteroom::{Anteroom, Seat};
use crate::auth::{Applicant, Broken, Credential, Gatekeeper, NotLetIn, Peer};
use crate::cancel::{Cancels, NOBODYS};
use crate::console::{self, Right};
use crate::errors;
use crate::gate::Gate;
use crate::hold::Hold;
use crate::net::{Inbox, Outbox, Stream};
use crate::options::{Admins, Limits, OnLossyFailover, PoolMode, Route};
use crate::pause::Pause;
use crate::peers::Peers;
use crate::pool::{Pools, Startup};
use crate::prepared::Registry;
use crate::session::attach::{Attached, Unattached};
use crate::session::mind::Mind;
use crate::session::standin::{say, tell};
use crate::stats::{Roster, Stats};
use crate::swap::Swap;
use crate::tls::ClientTls;
use crate::topology::{At, Doubt, Ear, Kind, Readers, Seen, choose};
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use wire::backend::{Authentication, CancelKey, Message, Report, TransactionStatus};
use wire::frontend::Framer;
use wire::startup::{Agreed, CancelRequest, First, Opening, Packet, Replication, StartupMessage};
use wire::{Hidden, Stage};

/// What all sessions of a proxy share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mode: Swap<PoolMode>,
    pub(crate) limits: Arc<Swap<Limits>>,
    pub(crate) gatekeeper: Gatekeeper,
    pub(crate) client_tls: Swap<ClientTls>,
    pub(crate) pools: Arc<Pools>,
    pub(crate) gate: Arc<Gate>,
    /// Raised when a server is lost: it may not be the primary any more.
    pub(crate) doubt: Doubt,
    pub(crate) cancels: Arc<Cancels>,
    /// The other proxies of the cluster.
    pub(crate) peers: Peers,
    pub(crate) hold: Arc<Hold>,
    pub(crate) seen: Seen,
    /// Whether the store answers, if there is one.
    pub(crate) ear: Arc<Ear>,
    pub(crate) readers: Readers,
    pub(crate) registry: Arc<Registry>,
    pub(crate) on_lossy_failover: Swap<OnLossyFailover>,
    pub(crate) closing: Closing,
    pub(crate) anteroom: Anteroom,
    /// The proxy in whose place this one is: sessions that it still has are cancelled by it.
    pub(crate) predecessor: tokio::sync::Mutex<Option<UnixStream>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) pause: Pause,
    pub(crate) admins: Swap<Admins>,
    pub(crate) wishes: Wishes,
    /// What the source of the primary can't promise.
    pub(crate) missing: &'static [&'static str],
}

/// What the console was told that is not the proxy's own to do.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) reload: Notify,
    pub(crate) reloads: watch::Sender<Reloads>,
    pub(crate) stop: Notify,
}

/// How often the files were read again, and why the last attempt changed nothing.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) count: u64,
    pub(crate) refused: Option<String>,
}

impl Shared {
    /// Where a session's next server is, or the reason why there is none.
    pub(crate) fn place(&self, route: Route) -> Result<At, String> {
        if route == Route::Read {
            let lag_bytes_max = self.limits.load().read_lag_bytes_max;
            if let Some(reader) = choose(&self.readers.borrow(), lag_bytes_max) {
                return Ok(reader.at.clone());
            }
        }
        let topology = Arc::clone(&self.seen.borrow());
        let primary = topology.primary.as_ref().map_err(Clone::clone)?;
        Ok(At {
            address: primary.address.clone(),
            epoch: topology.epoch,
            gate: Arc::clone(&self.gate),
            kind: match route {
                Route::Write | Route::Lookup => Kind::Primary,
                Route::Read => Kind::PrimaryToRead,
            },
        })
    }

    /// Of a client at the console; `None`: it wants a server.
    fn right_at_console(&self, wanted: &Wanted) -> Option<Right> {
        let is_consoles = console::DATABASES.contains(&wanted.database.as_str());
        let admins = is_consoles.then(|| self.admins.load())?;
        admins.right_of(&wanted.user, &wanted.database)
    }

    /// Why a request has found no server, with what is wrong with the store: what is known of the primary may be old.
    pub(crate) fn reason(&self, why: &str) -> String {
        match self.ear.contact().trouble() {
            Some(trouble) if !why.contains(&trouble) => format!("{why}; {trouble}"),
            _ => why.to_owned(),
        }
    }

    /// Cancels what the key is for, if it is anybody's: here, or at another proxy of the cluster.
    /// `hidden`: the request came by TLS.
    pub(crate) async fn cancel(&self, request: &CancelRequest<'_>, hidden: bool) {
        if request.0.process_id & NOBODYS != 0 {
            let own = CancelRequest(CancelKey {
                process_id: request.0.process_id & !NOBODYS,
                ..request.0
            });
            self.cancel_here(&own).await;
        } else if !self.cancel_here(request).await {
            let (own, limit) = (self.cancels.number(), self.limits.load().connect_time);
            self.peers.pass_on(request, own, hidden, limit).await;
        }
    }

    /// The same for a session of ours, or of the proxy that was here before; `false`: it is certainly
    /// none of ours.
    pub(crate) async fn cancel_here(&self, request: &CancelRequest<'_>) -> bool {
        let Hidden(secret) = request.0.secret;
        if let Some(slot) = self.cancels.find(request.0.process_id, secret) {
            let limit = self.limits.load().connect_time;
            crate::cancel::pass_on(&slot, limit).await;
            return true;
        }
        let mut predecessor = self.predecessor.lock().await;
        let Some(stream) = &mut *predecessor else {
            return false;
        };
        let mut packet = Vec::new();
        if Packet::Cancel(*request).encode(&mut packet).is_err() {
            return false;
        }
        let limit = std::time::Duration::from_secs(1);
        let passed = tokio::time::timeout(limit, stream.write_all(&packet)).await;
        if !matches!(passed, Ok(Ok(()))) {
            // It has ended, and its sessions with it.
            *predecessor = None;
        }
        false
    }

    /// Until what [`Shared::place`] says may be something else.
    /// What came before this call does not count.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let (mut seen, mut readers) = (self.seen.clone(), self.readers.clone());
        seen.mark_unchanged();
        readers.mark_unchanged();
        async move {
            // They fail when nobody tells anything more.
            tokio::select! {
                Ok(()) = seen.changed() => {}
                Ok(()) = readers.changed() => {}
                else => std::future::pending().await,
            }
        }
    }
}

/// What a client wants to be.
struct Wanted {
    user: String,
    database: String,
    startup: Startup,
    /// NegotiateProtocolVersion, if it is called for.
    negotiation: Vec<u8>,
    secret_bytes: usize,
}

/// Who is let in, and what for.
struct Known {
    wanted: Wanted,
    credential: Credential,
    place: Place,
}

/// A beginning that leads to no session.
enum Refused {
    /// Nothing is said.
    Silent,
    Told(Report),
}

impl From<Report> for Refused {
    fn from(report: Report) -> Self {
        Self::Told(report)
    }
}

/// Serves one connection from its first byte to its end.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: Stream, route: Route, seat: Seat) {
    let mut inbox = Inbox::default();
    let limit = shared.limits.load().login_time;
    let mut speaks = false;
    let greeting = Box::pin(greet(&shared, &mut stream, &mut inbox, &mut speaks));
    let greeted = tokio::time::timeout(limit, greeting).await;
    let known = match greeted {
        Ok(Ok(known)) => known,
        Ok(Err(Refused::Told(report))) => return refuse(stream, &report).await,
        Err(_) if speaks => return refuse(stream, &errors::late()).await,
        Ok(Err(Refused::Silent)) | Err(_) => return,
    };
    drop(seat);
    let Known {
        wanted,
        credential,
        place: _place,
    } = known;
    if let Some(right) = shared.right_at_console(&wanted) {
        return Box::pin(console::serve(&shared, stream, inbox, right)).await;
    }
    let Some(key) = shared.cancels.issue(wanted.secret_bytes) else {
        tracing::error!("the machine gives no random numbers: nobody can be let in");
        return;
    };
    key.slot.belongs_here().await;
    let limits = wire::Limits {
        // What must be read of a statement is read in one piece.
        held_bytes_max: 256 * 1024,
        ..wire::Limits::default()
    };
    let losses = shared.seen.borrow().losses;
    let pool = shared.pools.of(&wanted.user, &wanted.database, route);
    let (address, is_encrypted) = (stream.peer_address(), stream.is_encrypted());
    let entry = shared.roster.enter(&pool, address, is_encrypted);
    let mut conversation = Conversation {
        stream,
        inbox,
        outbox: Outbox::default(),
        framer: Framer::new(Stage::Conversation, limits),
        pool,
        entry,
        alarm: Alarm::default(),
        startup: Arc::new(wanted.startup),
        route,
        credential,
        key,
        mind: Mind::new(
            *shared.mode.load(),
            route,
            Arc::clone(&shared.registry),
            shared.limits.load().prepared_max,
        ),
        told: Arc::default(),
        welcome: None,
        is_greeted: false,
        losses,
        stand_in: None,
        leaving: false,
        shared,
    };
    if !Box::pin(conversation.welcome()).await {
        return;
    }
    let ending = conversation.run().await;
    tracing::debug!(
        user = &*conversation.pool.user,
        ?ending,
        "a session has ended"
    );
}

async fn refuse(mut stream: Stream, report: &Report) {
    let mut bytes = Vec::new();
    tell(report, &mut bytes);
    let limit = std::time::Duration::from_secs(1);
    // Who does not listen has not heard it.
    let _ = tokio::time::timeout(limit, stream.write_all(&bytes)).await;
}

/// `speaks` becomes true when it is clear that there is a client of PostgreSQL's, who will understand an error.
async fn greet(
    shared: &Arc<Shared>,
    stream: &mut Stream,
    inbox: &mut Inbox,
    speaks: &mut bool,
) -> Result<Known, Refused> {
    let wanted = open(shared, stream, inbox).await?;
    *speaks = true;
    let sent = stream.write_all(&wanted.negotiation).await;
    sent.map_err(|_| Refused::Silent)?;
    let most = match shared.right_at_console(&wanted) {
        // Somebody must be able to find out why nobody else is let in.
        Some(Right::Everything | Right::Look) => usize::MAX,
        Some(Right::Nothing) | None => shared.limits.load().clients_max,
    };
    let Some(place) = shared.closing.enter(most) else {
        if shared.closing.full.is_due() {
            let (user, database) = (&wanted.user, &wanted.database);
            let address = stream.peer_address();
            tracing::warn!(
                user,
                database,
                ?address,
                max_client_conn = most,
                "a client is turned away: the proxy is full"
            );
        }
        return Err(errors::full(most).into());
    };
    let found = match shared.gatekeeper.lookup(&wanted.user) {
        None => None,
        Some((query, credential)) => {
            let (user, database) = (&wanted.user, &wanted.database);
            let looking = shared.look_up(&query, &credential, user, database);
            Box::pin(looking).await?
        }
    };
    let tls = shared.client_tls.load();
    let end_point = tls.end_point.as_deref();
    let applicant = Applicant {
        user: &wanted.user,
        database: &wanted.database,
        peer: Peer::of(stream),
        found,
        end_point: end_point.filter(|_| stream.is_encrypted()),
    };
    let verified = shared.gatekeeper.verify(&applicant, stream, inbox).await;
    let error = match verified {
        Ok(credential) => {
            return Ok(Known {
                wanted,
                credential,
                place,
            });
        }
        Err(NotLetIn::Broken(Broken::Frame(error))) => {
            tracing::debug!(%error, "a login that is none of PostgreSQL's");
            return Err(errors::protocol("invalid message during authentication").into());
        }
        Err(NotLetIn::Broken(_)) => return Err(Refused::Silent),
        Err(error @ NotLetIn::NoRandom(_)) => {
            tracing::error!(%error, "nobody can be let in");
            return Err(Refused::Silent);
        }
        Err(error) => error,
    };
    let user = &wanted.user;
    tracing::info!(user, %error, "a client was not let in");
    let (how, code) = match error {
        NotLetIn::NoRule | NotLetIn::Rejected => {
            let what = match error {
                NotLetIn::NoRule => "no pg_hba.conf entry",
                _ => "pg_hba.conf rejects connection",
            };
            let (peer, database) = (applicant.peer.described(), &wanted.database);
            let text = format!("{what} for {peer}, user \"{user}\", database \"{database}\"");
            return Err(Report::fatal(errors::INVALID_AUTHORIZATION, &text).into());
        }
        NotLetIn::SomebodyElse(how) => (how, errors::INVALID_AUTHORIZATION),
        _ => ("password", errors::INVALID_PASSWORD),
    };
    let text = format!("{how} authentication failed for user \"{user}\"");
    Err(Report::fatal(code, &text).into())
}

/// Up to the startup packet.
async fn open(
    shared: &Arc<Shared>,
    stream: &mut Stream,
    inbox: &mut Inbox,
) -> Result<Wanted, Refused> {
    let mut opening = Opening::new();
    let tls = shared.client_tls.load();
    let has_tls = tls.config.is_some() && matches!(stream, Stream::Tcp(_));
    loop {
        match opening.next(inbox.unread()) {
            Err(error) => {
                tracing::debug!(%error, "a connection that is none of PostgreSQL's");
                return Err(errors::protocol("invalid startup packet").into());
            }
            Ok(First::More { buffer_bytes }) => {
                inbox.want(buffer_bytes);
                match inbox.fill(stream).await {
                    Ok(0) | Err(_) => return Err(Refused::Silent),
                    Ok(_) => {}
                }
            }
            Ok(First::DirectTls) if has_tls => {
                let early = inbox.unread().to_vec();
                inbox.forget();
                secure(stream, &tls, &early, false).await?;
                opening.encrypted();
            }
            Ok(First::DirectTls) => return Err(Refused::Silent),
            Ok(First::SslRequest) if has_tls => {
                inbox.forget();
                stream.write_all(b"S").await.map_err(|_| Refused::Silent)?;
                secure(stream, &tls, &[], true).await?;
                opening.encrypted();
            }
            Ok(First::SslRequest | First::GssEncRequest) => {
                inbox.forget();
                opening.declined();
                stream.write_all(b"N").await.map_err(|_| Refused::Silent)?;
            }
            Ok(First::Cancel(request)) => {
                shared.cancel(&request, stream.is_encrypted()).await;
                // Whether there was such a key is not said. Without a proper end libpq 17 reports an error.
                let _ = stream.end().await;
                return Err(Refused::Silent);
            }
            Ok(First::Startup(..))
                if has_tls && tls.mode.is_required() && !stream.is_encrypted() =>
            {
                let text = "the proxy requires encryption by TLS";
                return Err(Report::fatal(errors::INVALID_AUTHORIZATION, text).into());
            }
            Ok(First::Startup(startup, taken)) => {
                let wanted = wanted(&startup)?;
                inbox.drop_unread(taken);
                return Ok(wanted);
            }
        }
    }
}

async fn secure(
    stream: &mut Stream,
    tls: &ClientTls,
    early: &[u8],
    by_request: bool,
) -> Result<(), Refused> {
    let secured = Box::pin(stream.secure(tls, early, by_request)).await;
    secured.map_err(|error| {
        tracing::info!(%error, "a TLS handshake failed");
        Refused::Silent
    })
}

fn wanted(startup: &StartupMessage<'_>) -> Result<Wanted, Refused> {
    let unsupported = |text: &str| Report::fatal(errors::UNSUPPORTED, text);
    let agreed = Agreed::on(startup).map_err(|error| unsupported(&error.to_string()))?;
    let text = |text: &std::ffi::CStr| text.to_str().map(str::to_owned);
    let utf8 = |_| Report::fatal(errors::INVALID_AUTHORIZATION, "names must be UTF-8");
    let nobody = || {
        let text = "no PostgreSQL user name specified in startup packet";
        Report::fatal(errors::INVALID_AUTHORIZATION, text)
    };
    let user = text(startup.user().ok_or_else(nobody)?).map_err(utf8)?;
    let database = text(startup.database().ok_or_else(nobody)?).map_err(utf8)?;
    match startup.replication() {
        Ok(Replication::No) => {}
        Ok(_) => return Err(unsupported("the proxy does not carry replication").into()),
        Err(_) => {
            let text = "invalid value for parameter \"replication\"";
            return Err(Report::fatal(wire::backend::SqlState(*b"22023"), text).into());
        }
    }
    let mut negotiation = Vec::new();
    agreed
        .encode(startup, &mut negotiation)
        .map_err(|_| Refused::Silent)?;
    let settings = startup.settings();
    let mut settings: Startup = settings
        .map(|(name, value)| (name.to_bytes().into(), value.to_bytes().into()))
        .collect();
    settings.sort();
    Ok(Wanted {
        user,
        database,
        startup: settings,
        negotiation,
        secret_bytes: match agreed.version.has_short_cancel_keys() {
            true => 4,
            false => 32,
        },
    })
}

impl Conversation {
    /// What a server says behind a login; `false`: there is no session.
    async fn welcome(&mut self) -> bool {
        if let Some(welcome) = self.pool.welcome(&self.startup) {
            self.told = Arc::clone(&welcome.parameters);
            self.welcome = Some(welcome);
        } else {
            // Nobody was let in with these settings yet: a server must say whether we are.
            match self.attach_or_wait(None, None).await {
                Ok(Attached { server, permit }) => {
                    self.told = Arc::clone(&server.mirror.parameters);
                    self.outbox.forget();
                    self.pool.put(server);
                    drop(permit);
                }
                Err(Unattached::Gone) => return false,
                Err(Unattached::Refused(report)) => {
                    // There is no session that could go on.
                    tell(&report.into_fatal(), self.outbox.room());
                    let _ = self.say_goodbye(Ending::Told).await;
                    return false;
                }
                Err(why) => {
                    let _ = self.unattached(why);
                    let _ = self.say_goodbye(Ending::Told).await;
                    return false;
                }
            }
        }
        self.greeting();
        self.is_greeted = true;
        self.outbox.flush(&mut self.stream).await.is_ok()
    }

    fn greeting(&mut self) {
        let slot = Arc::clone(&self.key.slot);
        let told = Arc::clone(&self.told);
        let out = self.outbox.room();
        say(&Message::Authentication(Authentication::Ok), out);
        for (name, value) in told.iter() {
            let text = |bytes: &[u8]| std::ffi::CString::new(bytes).unwrap_or_default();
            let (name, value) = (text(name), text(value));
            let status = Message::ParameterStatus {
                name: &name,
                value: &value,
            };
            say(&status, out);
        }
        let key = CancelKey {
            process_id: slot.process_id,
            secret: Hidden(&slot.secret),
        };
        say(&Message::BackendKeyData(key), out);
        say(&Message::ReadyForQuery(TransactionStatus::Idle), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand of them are to fit into 64 MB, with what the kernel's side of it costs us.
    #[test]
    fn a_session_that_does_nothing_is_small() {
        let bytes = size_of_future(serve);
        assert!(bytes <= 3 * 1024, "{bytes} bytes");
    }
}
