//! Several servers and no cluster: each is asked what it is.
//!
//! It logs in as a user of its own; what that may see, anybody may.

use super::judge::{Look, Sighting};
use super::{At, Doubt, Kind};
use crate::auth::Credential;
use crate::gate::Gate;
use crate::options::Route;
use crate::pool::{Pool, Pools, Server, Startup};
use ha::Epoch;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long one may take to answer.
const LIMIT: Duration = Duration::from_secs(1);

/// With numbers, so that no locale has a say. A standby does not name its WAL's files.
const QUESTION: &[u8] = b"SELECT pg_catalog.pg_is_in_recovery()::int, CASE WHEN NOT \
    pg_catalog.pg_is_in_recovery() THEN pg_catalog.left(pg_catalog.pg_walfile_name(\
    pg_catalog.pg_current_wal_lsn()), 8) END";

/// Looks at all of them for as long as somebody listens.
pub(super) async fn watch(
    addresses: Vec<String>,
    pools: Arc<Pools>,
    (user, database): (String, String),
    credential: Credential,
    doubt: Doubt,
    told: watch::Sender<Option<Arc<Look>>>,
) {
    // The epochs of those who are watched are for others to tell.
    let gate = Gate::new();
    gate.adopt(Epoch(1));
    let acquaintance = |address: &String| Acquaintance {
        at: At {
            address: address.clone(),
            epoch: Epoch(1),
            gate: Arc::clone(&gate),
            kind: Kind::Standby,
        },
        pool: pools.of(&user, &database, Route::Read),
        credential: credential.clone(),
        server: None,
        said: None,
    };
    let mut looks: Vec<_> = addresses.iter().map(acquaintance).collect();
    let mut last = None;
    loop {
        tokio::select! {
            () = doubt.next_look(last) => {}
            () = told.closed() => return,
        }
        let begun = Instant::now();
        let mut under_way = JoinSet::new();
        for (number, look) in looks.drain(..).enumerate() {
            under_way.spawn(async move {
                let (look, sighting) = look.look().await;
                (number, look, sighting)
            });
        }
        let mut done = under_way.join_all().await;
        done.sort_by_key(|(number, ..)| *number);
        let mut seen = Vec::new();
        for (_, look, sighting) in done {
            looks.push(look);
            seen.push(sighting);
        }
        last = Some((begun, seen.iter().any(|one| one.is_primary)));
        told.send_replace(Some(Arc::new(Look { begun, seen })));
    }
}

/// One server.
struct Acquaintance {
    at: At,
    pool: Arc<Pool>,
    credential: Credential,
    server: Option<Box<Server>>,
    /// Why it could not be asked last time.
    said: Option<String>,
}

impl Acquaintance {
    async fn look(mut self) -> (Self, Sighting) {
        let asked = tokio::time::timeout(LIMIT, self.ask()).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
        let mut sighting = Sighting {
            name: self.at.address.clone(),
            address: self.at.address.clone(),
            leads: false,
            is_primary: false,
            timeline: None,
            confirms: false,
        };
        match asked {
            Ok(timeline) => {
                sighting.is_primary = timeline.is_some();
                sighting.leads = sighting.is_primary;
                sighting.timeline = timeline;
                self.said = None;
            }
            Err(why) => {
                self.server = None;
                if self.said.as_ref() != Some(&why) {
                    tracing::info!(address = self.at.address, why, "a server can't be asked");
                    self.said = Some(why);
                }
            }
        }
        (self, sighting)
    }

    /// The timeline of a primary.
    async fn ask(&mut self) -> Result<Option<u64>, String> {
        let mut server = match self.server.take() {
            Some(server) => server,
            None => {
                let startup = Arc::new(Startup::new());
                let opened = self.pool.open(&startup, &self.credential, &self.at);
                Box::pin(opened).await.map_err(|error| error.to_string())?
            }
        };
        server.query(QUESTION).map_err(|error| error.to_string())?;
        let rows = server.rows().await.map_err(|error| error.to_string())?;
        self.server = Some(server);
        match rows.first().map(Vec::as_slice) {
            Some([Some(recovers), None]) if **recovers == *b"1" => Ok(None),
            Some([Some(recovers), Some(timeline)]) if **recovers == *b"0" => {
                let digits = std::str::from_utf8(timeline).ok();
                let timeline = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                timeline
                    .map(Some)
                    .ok_or_else(|| "a timeline that is none".to_owned())
            }
            _ => Err("an answer to another question".to_owned()),
        }
    }
}
