//! Connections to servers, and who gets one.
//!
//! **Invariant:** for a user and a database there are never more than `pool_size` connections, idle
//! ones included, and `reserve_size` more for who has waited for `reserve_after`; who waits longest is
//! served first.
//!
//! **Invariant:** what lies here is between two transactions, belongs to the current epoch when it is
//! taken out, and carries nothing of its last client but what it says in `applied`.

mod connect;
mod loan;
mod places;
mod quota;
mod refusals;
mod rows;
mod server;
mod vain;
mod welcome;

pub(crate) use connect::{ConnectError, connect};
pub(crate) use loan::{Loan, Names};
pub(crate) use places::Permit;
use places::Places;
use quota::{Counted, Full, Quota};
pub(crate) use server::{Kept, Mirror, Parameters, Refusal, Server};
pub(crate) use vain::InVain;
use vain::Vain;
pub(crate) use welcome::Welcome;
use welcome::{Said, Welcomes};

use crate::auth::Credential;
use crate::cancel::Target;
use crate::journal::Settings;
use crate::net::{Keepalive, Vigil};
use crate::options::{Limits, Route};
use crate::swap::Swap;
use crate::tls::ServerTls;
use crate::topology::At;
use ha::Epoch;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

/// The settings of a client's startup packet, sorted: server connections that are opened for it start with the same.
pub(crate) type Startup = Vec<(Box<[u8]>, Box<[u8]>)>;

/// All of a proxy's.
#[derive(Debug)]
pub(crate) struct Pools {
    tls: Arc<Swap<ServerTls>>,
    limits: Arc<Swap<Limits>>,
    quota: Arc<Quota>,
    vigil: Arc<Vigil>,
    pools: Mutex<HashMap<Whose, Arc<Pool>>>,
    /// How often everybody was told to connect anew.
    generation: Arc<AtomicU64>,
}

/// User, database, and what they are for.
type Whose = (Box<str>, Box<str>, Route);

/// Those of one user and one database.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) user: Box<str>,
    pub(crate) database: Box<str>,
    route: Route,
    /// Whoever wants a connection may have one closed that others leave idle.
    all: Weak<Pools>,
    tls: Arc<Swap<ServerTls>>,
    limits: Arc<Swap<Limits>>,
    quota: Arc<Quota>,
    vigil: Arc<Vigil>,
    places: Places,
    /// For who has waited for long.
    reserve: Places,
    vain: Vain,
    /// The last one used is the last in the list.
    idle: Mutex<VecDeque<Idle>>,
    /// With what the last login went: connections that are kept open for those who may come log in
    /// the same way.
    last: Mutex<Option<(Arc<Startup>, Credential)>>,
    welcomes: Welcomes,
    /// No settings at all, in one copy.
    unset: Arc<Settings>,
    /// What a password comes to under the servers' salt.
    keys: crate::auth::KeyCache,
    pub(crate) work: crate::stats::Work,
    generation: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Idle {
    server: Box<Server>,
    /// When a sweep saw it here first: reading a clock for each transaction would cost more than it tells.
    since: Option<Instant>,
}

impl Pools {
    pub(crate) fn new(tls: ServerTls, limits: Arc<Swap<Limits>>) -> Arc<Self> {
        Arc::new(Self {
            quota: Arc::default(),
            vigil: Arc::default(),
            tls: Arc::new(Swap::new(tls)),
            limits,
            pools: Mutex::default(),
            generation: Arc::default(),
        })
    }

    pub(crate) fn of(self: &Arc<Self>, user: &str, database: &str, route: Route) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools
            .entry((user.into(), database.into(), route))
            .or_insert_with(|| {
                let limits = self.limits.load();
                Arc::new(Pool {
                    user: user.into(),
                    database: database.into(),
                    route,
                    all: Arc::downgrade(self),
                    quota: Arc::clone(&self.quota),
                    vigil: Arc::clone(&self.vigil),
                    last: Mutex::default(),
                    tls: Arc::clone(&self.tls),
                    limits: Arc::clone(&self.limits),
                    places: Places::new(limits.pool_size),
                    reserve: Places::new(limits.reserve_size),
                    vain: Vain::default(),
                    idle: Mutex::default(),
                    welcomes: Welcomes::default(),
                    unset: Arc::default(),
                    keys: crate::auth::KeyCache::default(),
                    work: crate::stats::Work::default(),
                    generation: Arc::clone(&self.generation),
                })
            });
        Arc::clone(pool)
    }

    /// Closes what nobody has used for long, and what is of an older epoch. `true`: some of the
    /// current one were lost.
    pub(crate) fn sweep(&self) -> bool {
        let limits = self.limits.load();
        let gone = self.vigil.look(Instant::now(), limits.keepalive.patience());
        if gone > 0 {
            tracing::warn!(
                connections = gone,
                "servers are given up that acknowledge nothing of what they were sent"
            );
        }
        let lost = self
            .all()
            .iter()
            .map(|pool| pool.sweep(&limits))
            .sum::<usize>();
        self.forget_unused();
        lost > 0
    }

    /// Anybody may name a database that there is not: a pool that nobody has, and that no server has let in, goes.
    fn forget_unused(&self) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| Arc::strong_count(pool) > 1 || pool.was_let_in());
    }

    /// Opens what is to be kept open for those who may come, one after the other.
    pub(crate) async fn warm(&self, primary: &At) {
        for pool in self.all() {
            if pool.route == Route::Write {
                Box::pin(pool.warm(primary)).await;
            }
        }
    }

    /// Closes one connection that lies idle and stands in the way; `false`: there is none.
    fn evict(&self, full: Full, user: &str, database: &str) -> bool {
        let in_the_way = |pool: &&Arc<Pool>| match full {
            Full::All(_) => true,
            Full::User(_) => *pool.user == *user,
            Full::Database(_) => *pool.database == *database,
        };
        let all = self.all();
        let longest = all
            .iter()
            .filter(in_the_way)
            .filter_map(|pool| Some((pool.idle().front()?.since, pool)))
            .min_by_key(|(since, _)| (since.is_none(), *since));
        longest.is_some_and(|(_, pool)| pool.idle().pop_front().is_some())
    }

    /// Other ways to reach servers from now on, and other sizes.
    pub(crate) fn reload(&self, tls: ServerTls) {
        self.tls.store(tls);
        let limits = self.limits.load();
        for pool in self.all() {
            pool.places.resize(limits.pool_size);
            pool.reserve.resize(limits.reserve_size);
        }
    }

    /// Closes what lies idle now, and what is at work when it comes back.
    pub(crate) fn reconnect(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        for pool in self.all() {
            pool.idle().clear();
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().cloned().collect()
    }
}

impl Pool {
    /// Waits for its turn.
    pub(crate) async fn permit(&self) -> Option<Permit> {
        let after = self.limits.load().reserve_after;
        let turn = self.places.enter();
        // As PgBouncer has it: at once, it would be a larger pool and no reserve.
        if self.reserve.size() == 0 || after.is_zero() {
            return turn.await;
        }
        let mut turn = pin!(turn);
        let in_reserve = async {
            tokio::time::sleep(after).await;
            self.reserve.enter().await
        };
        tokio::select! {
            biased;
            permit = &mut turn => permit,
            permit = in_reserve => permit,
        }
    }

    /// Somebody has a place, and gets no server.
    pub(crate) fn wait_in_vain(self: &Arc<Self>, why: &str) -> InVain {
        InVain::new(self, why)
    }

    /// Why those who have a place get no server, if that is so.
    pub(crate) fn why_in_vain(&self) -> Option<String> {
        self.vain.why()
    }

    /// A place, if there is one and nobody waits for it.
    pub(crate) fn try_permit(&self) -> Option<Permit> {
        self.places.try_enter()
    }

    /// What a server would say at a login with these settings, if that is known.
    pub(crate) fn welcome(&self, startup: &Arc<Startup>) -> Option<Arc<Welcome>> {
        self.welcomes.of(startup)
    }

    /// One that lies idle and was started with the same settings.
    /// With an `address` only one that leads there.
    pub(crate) fn take(
        &self,
        startup: &Arc<Startup>,
        epoch: Epoch,
        address: Option<&str>,
    ) -> Option<Box<Server>> {
        self.take_which(epoch, address, |one| one.startup == *startup)
    }

    /// One that lies idle and was started with settings that differ by what can be set.
    pub(crate) fn borrow(
        &self,
        startup: &Startup,
        welcome: &Arc<Welcome>,
        epoch: Epoch,
        address: Option<&str>,
    ) -> Option<Box<Server>> {
        let was_lent = |one: &mut Server| {
            let loan = one.mirror.loan.as_ref();
            loan.is_some_and(|loan| loan.is(welcome, one))
        };
        let is_lent = |one: &mut Server| {
            let loan = Loan::new(startup, welcome, one);
            loan.map(|loan| one.lend(loan)).is_some()
        };
        // Rather one that was made to look so before.
        let again = self.take_which(epoch, address, was_lent);
        again.or_else(|| self.take_which(epoch, address, is_lent))
    }

    fn take_which(
        &self,
        epoch: Epoch,
        address: Option<&str>,
        mut is_wanted: impl FnMut(&mut Server) -> bool,
    ) -> Option<Box<Server>> {
        let mut idle = self.idle();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let one = &mut idle[at].server;
            let elsewhere = address.is_some_and(|address| one.target.address != *address);
            if elsewhere || !is_wanted(one) {
                continue;
            }
            let Some(Idle { mut server, .. }) = idle.remove(at) else {
                continue;
            };
            if server.epoch == epoch && server.is_fit() {
                return Some(server);
            }
        }
        None
    }

    pub(crate) fn keepalive(&self) -> Keepalive {
        self.limits.load().keepalive
    }

    /// Opens another one; the caller has a permit, so at most one too many lies idle.
    pub(crate) async fn open(
        &self,
        startup: &Arc<Startup>,
        credential: &Credential,
        at: &At,
    ) -> Result<Box<Server>, ConnectError> {
        self.make_room();
        let counted = self.count()?;
        let tls = self.tls.load();
        let opening = connect(self, &tls, startup, credential, at, counted);
        let limit = self.limits.load().connect_time;
        let server = tokio::time::timeout(limit, Box::pin(opening)).await;
        let mut server = server.map_err(|_| ConnectError::Late(limit))??;
        self.welcomes.learn(&mut server);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(_, known)| known != credential) {
            *last = Some((Arc::clone(startup), credential.clone()));
        }
        drop(last);
        Ok(server)
    }

    /// A place for one more connection, at the cost of one that somebody else leaves idle.
    fn count(&self) -> Result<Counted, Full> {
        let limits = self.limits.load();
        loop {
            let full = match self.quota.take(&self.user, &self.database, &limits) {
                Ok(counted) => return Ok(counted),
                Err(full) => full,
            };
            let all = self.all.upgrade();
            if !all.is_some_and(|all| all.evict(full, &self.user, &self.database)) {
                return Err(full);
            }
        }
    }

    /// Until a connection is closed, anybody's.
    pub(crate) async fn freed(&self) {
        self.quota.freed.notified().await;
    }

    /// As many connections as are to be kept open.
    async fn warm(&self, primary: &At) {
        let least = self.limits.load().pool_size_min;
        let last = || {
            self.last
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        let Some((startup, credential)) = last().filter(|_| least > 0) else {
            return;
        };
        while self.connections() < least {
            let Some(permit) = self.try_permit() else {
                return;
            };
            match Box::pin(self.open(&startup, &credential, primary)).await {
                Ok(server) => self.put(server),
                // Whoever needs one will hear why.
                Err(error) => {
                    tracing::debug!(user = &*self.user, %error, "no connection to keep open");
                    return;
                }
            }
            drop(permit);
        }
    }

    fn was_let_in(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some()
    }

    /// Idle and at work.
    pub(crate) fn connections(&self) -> usize {
        self.idle().len() + self.at_work()
    }

    fn at_work(&self) -> usize {
        self.places.taken() + self.reserve.taken()
    }

    pub(crate) fn keys(&self) -> &crate::auth::KeyCache {
        &self.keys
    }

    /// Gives one back.
    pub(crate) fn put(&self, server: Box<Server>) {
        let is_fit = server.stamp.is_current() && !server.mirror.is_mixed_up;
        if is_fit && server.generation == self.generation() {
            let since = None;
            self.idle().push_back(Idle { server, since });
        }
    }

    /// How often everybody was told to connect anew.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn route_name(&self) -> &'static str {
        match self.route {
            Route::Write => "write",
            Route::Read => "read",
            Route::Lookup => "lookup",
        }
    }

    pub(crate) fn idle_servers(&self) -> usize {
        self.idle().len()
    }

    /// Where each connection leads that lies idle, and its epoch.
    pub(crate) fn idle_list(&self) -> Vec<(Arc<Target>, Epoch)> {
        let idle = self.idle();
        let all = idle.iter();
        all.map(|one| (Arc::clone(&one.server.target), one.server.epoch))
            .collect()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of all that were started with other settings, the one that lay longest goes if there would
    /// be too many.
    fn make_room(&self) {
        let mut idle = self.idle();
        let most = self.places.size() + self.reserve.taken();
        while !idle.is_empty() && idle.len() + self.at_work() > most {
            idle.pop_front();
        }
    }

    /// Gives how many were lost by their servers.
    fn sweep(&self, limits: &Limits) -> usize {
        let surplus = self.connections().saturating_sub(limits.pool_size_min);
        // What the reserve has left is not kept.
        self.make_room();
        let mut idle = self.idle();
        let mut kept: VecDeque<_> = idle.drain(..).collect();
        let mut lost = 0;
        kept.retain_mut(|one| {
            let is_fit = one.server.is_fit();
            lost += usize::from(!is_fit && one.server.stamp.is_current());
            is_fit
        });
        let now = Instant::now();
        for one in &mut kept {
            one.since.get_or_insert(now);
        }
        let is_old = |one: &Idle| {
            one.since
                .is_some_and(|since| now - since >= limits.server_idle)
        };
        let old = kept.iter().take(surplus).take_while(|one| is_old(one));
        kept.drain(..old.count());
        *idle = kept;
        lost
    }
}
