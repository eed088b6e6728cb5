//! The members of an etcd cluster, and the one that is asked first: the last that answered.
//!
//! **Invariant:** a call that may have had an effect is not made again, unless twice is the same as once.
//! **Invariant:** every answer that counts is of one and the same cluster.
//! It does not know what is asked.

use super::channel::{Call, Channel, Messages, Method, Orders};
use super::dial::{self, Spoken};
use super::failure::{Failure, Meaning};
use super::options::EtcdOptions;
use super::proto::{self, Answer};
use super::seek::Seek;
use super::srv;
use crate::lock;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// How long one member may take for what another can be asked as well.
const ATTEMPT: Duration = Duration::from_millis(300);
/// A caller that gives up after so long has waited for a member that is slow, not for too little time.
const GIVEN_UP: Duration = Duration::from_millis(200);
/// Between two rounds through all members.
const PAUSE: Duration = Duration::from_millis(30);
/// How often, at most, a cluster is asked for its members.
const DISCOVERY: Duration = Duration::from_secs(30);

const AUTHENTICATE: Method = Method("/etcdserverpb.Auth/Authenticate");
const MEMBER_LIST: Method = Method("/etcdserverpb.Cluster/MemberList");

#[derive(Debug)]
pub(super) struct Members {
    options: EtcdOptions,
    /// Where connections live, whoever asks for them.
    runtime: Handle,
    /// The first is asked first. Empty until DNS has named somebody, where nobody else does.
    all: Mutex<Vec<Arc<Member>>>,
    /// Who answered last, named or not.
    answered: Mutex<Weak<Member>>,
    seek: Option<Arc<Seek>>,
    /// The cluster that answered first; 0: none has yet.
    cluster: AtomicU64,
    token: Mutex<Option<Arc<str>>>,
    discovered: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Member {
    /// `host:port`.
    address: String,
    /// Stays, whatever else is found.
    configured: bool,
    named: Mutex<BTreeSet<Source>>,
    open: tokio::sync::Mutex<Option<Channel>>,
}

/// Who names members besides the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Dns,
    Cluster,
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once: others are asked until one answers.
    Harmless,
    /// Only if it certainly had no effect.
    Never,
}

impl Members {
    /// Connects to nobody yet. Must be called in a runtime, where its connections will live.
    pub(super) fn new(options: EtcdOptions) -> Arc<Self> {
        let all = options.members.iter().map(|at| Member::configured(at));
        let members = Arc::new(Self {
            runtime: Handle::current(),
            all: Mutex::new(all.collect()),
            answered: Mutex::default(),
            seek: options.srv.clone().map(|srv| Arc::new(Seek::new(srv))),
            cluster: AtomicU64::new(0),
            token: Mutex::new(None),
            discovered: Mutex::new(None),
            options,
        });
        if let Some(seek) = members.seek.clone() {
            let (tls, known) = (members.options.tls.clone(), Arc::downgrade(&members));
            let learn = move |found: &[String]| {
                let known = known.upgrade();
                known
                    .inspect(|known| known.named(Source::Dns, found))
                    .is_some()
            };
            members
                .runtime
                .spawn(async move { seek.run(tls, learn).await });
        }
        members
    }

    pub(super) fn options(&self) -> &EtcdOptions {
        &self.options
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// When a call that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.options.request_timeout
    }

    /// Asks one member after the other until one answers or it is `until`. The `bool` of a failure says whether an
    /// earlier attempt may have had an effect.
    pub(super) async fn ask<A: Answer>(
        self: &Arc<Self>,
        method: Method,
        question: &(impl Message + Clone),
        repeat: Repeat,
        until: Instant,
    ) -> (Result<A, Failure>, bool) {
        let mut sent_before = false;
        let mut tried = 0;
        loop {
            let member = match self.first(until).await {
                Ok(member) => member,
                Err(failure) => return (Err(failure), sent_before),
            };
            let patience = match repeat {
                Repeat::Harmless => until.min(Instant::now() + ATTEMPT),
                Repeat::Never => until,
            };
            let mut attempt = Attempt {
                members: self,
                member: &member,
                begun: Instant::now(),
                over: false,
            };
            let answer = self.ask_at(&member, method, question, patience, until);
            let answer = answer.await;
            attempt.over = true;
            drop(attempt);
            let failure = match answer {
                Ok(answer) => return (Ok(answer), sent_before),
                Err(failure) => failure,
            };
            tracing::debug!(member = member.address, ?failure, "etcd did not do it");
            if failure.is_worth_a_retry() {
                self.put_last(&member);
            }
            let certain = failure.had_no_effect();
            let again = failure.is_worth_a_retry() && (certain || repeat == Repeat::Harmless);
            if !again || Instant::now() >= until {
                return (Err(failure), sent_before);
            }
            sent_before |= !certain;
            tried += 1;
            if tried % self.count() == 0 {
                self.seek.iter().for_each(|seek| seek.soon());
                tokio::time::sleep_until(until.min(Instant::now() + PAUSE)).await;
            }
        }
    }

    /// Opens a stream to the member that is asked first.
    pub(super) async fn stream(
        self: &Arc<Self>,
        method: Method,
        first: &impl Message,
    ) -> Result<(Orders, Messages, Line), Failure> {
        let member = self.first(Instant::now() + ATTEMPT).await?;
        let opened = self.open_stream(&member, method, first).await;
        match opened {
            Ok((orders, messages)) => {
                let line = Line {
                    members: Arc::clone(self),
                    member,
                };
                Ok((orders, messages, line))
            }
            Err(failure) => {
                if failure.meaning() == Some(Meaning::LogIn) {
                    *lock(&self.token) = None;
                }
                if matches!(failure, Failure::NoAnswer(_)) {
                    member.open.lock().await.take();
                }
                self.put_last(&member);
                Err(failure)
            }
        }
    }

    async fn open_stream(
        self: &Arc<Self>,
        member: &Arc<Member>,
        method: Method,
        first: &impl Message,
    ) -> Result<(Orders, Messages), Failure> {
        let until = Instant::now() + ATTEMPT;
        let channel = self.channel(member, until).await?;
        let token = self.token(&channel, until).await?;
        let call = Call {
            method,
            token: token.as_deref(),
            until: None,
        };
        match timeout_at(until, channel.stream(call, first)).await {
            Ok(opened) => opened,
            Err(_) => {
                let why = format!("etcd at {}: no stream in time", member.address);
                Err(Failure::NoAnswer(why))
            }
        }
    }

    async fn ask_at<A: Answer>(
        self: &Arc<Self>,
        member: &Arc<Member>,
        method: Method,
        question: &impl Message,
        patience: Instant,
        until: Instant,
    ) -> Result<A, Failure> {
        // However long the call may take once it is sent, others can be asked until then.
        let connecting = until.min(Instant::now() + ATTEMPT);
        let channel = self.channel(member, connecting).await?;
        for attempt in 0.. {
            let token = self.token(&channel, until).await?;
            let call = Call {
                method,
                token: token.as_deref(),
                until: Some(patience),
            };
            match channel.ask::<A>(call, question).await {
                Ok(answer) => {
                    self.same_cluster(&answer, member)?;
                    *lock(&self.answered) = Arc::downgrade(member);
                    self.discover(member);
                    return Ok(answer);
                }
                // Tokens end by time, by a restart, and by every change of users and roles.
                Err(failure)
                    if failure.meaning() == Some(Meaning::LogIn)
                        && attempt == 0
                        && self.options.login.is_some() =>
                {
                    self.forget(token.as_deref());
                }
                Err(failure) => {
                    if matches!(failure, Failure::NoAnswer(_)) {
                        // Whether it is slow or gone is not known: the next one begins with a connection of its own.
                        member.hang_up(&channel).await;
                    }
                    return Err(failure);
                }
            }
        }
        unreachable!("the loop has no end of its own")
    }

    /// An open connection, made if need be.
    async fn channel(&self, member: &Arc<Member>, until: Instant) -> Result<Channel, Failure> {
        let late =
            || Failure::NotSent(format!("etcd at {}: no connection in time", member.address));
        let mut open = timeout_at(until, member.open.lock())
            .await
            .map_err(|_| late())?;
        if let Some(channel) = open.as_ref().filter(|channel| channel.is_usable()) {
            return Ok(channel.clone());
        }
        *open = None;
        let connecting = connect(member.address.clone(), self.options.clone());
        let connecting = self.runtime.spawn(connecting);
        let stop = connecting.abort_handle();
        let connected = timeout_at(until, connecting).await.map_err(|_| {
            stop.abort();
            late()
        })?;
        let connected = connected.unwrap_or_else(|error| Err(error.to_string()));
        let channel = connected.map_err(|why| {
            Failure::NotSent(format!(
                "cannot connect to etcd at {}: {why}",
                member.address
            ))
        })?;
        *open = Some(channel.clone());
        Ok(channel)
    }

    /// What we prove ourselves with, where there is a user; asked for when it is first needed.
    async fn token(&self, channel: &Channel, until: Instant) -> Result<Option<Arc<str>>, Failure> {
        let Some(login) = &self.options.login else {
            return Ok(None);
        };
        if let Some(token) = lock(&self.token).clone() {
            return Ok((!token.is_empty()).then_some(token));
        }
        let call = Call {
            method: AUTHENTICATE,
            token: None,
            until: Some(until),
        };
        let question = proto::AuthenticateRequest {
            name: login.user.clone(),
            password: login.password.clone(),
        };
        let token: Arc<str> = match channel
            .ask::<proto::AuthenticateResponse>(call, &question)
            .await
        {
            Ok(answer) => answer.token.into(),
            Err(failure) if failure.meaning() == Some(Meaning::NoAuth) => "".into(),
            Err(failure) if failure.meaning() == Some(Meaning::Denied) => return Err(failure),
            // What we came to ask has not been asked.
            Err(failure) => return Err(Failure::NotSent(failure.of_read().to_string())),
        };
        *lock(&self.token) = Some(Arc::clone(&token));
        Ok((!token.is_empty()).then_some(token))
    }

    /// Unless somebody has a newer one already.
    fn forget(&self, token: Option<&str>) {
        let mut held = lock(&self.token);
        if held.as_deref() == Some(token.unwrap_or_default()) {
            *held = None;
        }
    }

    fn same_cluster(&self, answer: &impl Answer, member: &Member) -> Result<(), Failure> {
        let cluster = answer.header().map_or(0, |header| header.cluster);
        let known = self
            .cluster
            .compare_exchange(0, cluster, Ordering::Relaxed, Ordering::Relaxed);
        match known {
            Err(known) if known != cluster => Err(Failure::NoAnswer(format!(
                "etcd at {} is another cluster ({cluster:x}) than the one that answered before ({known:x}): if it \
                 was restored from a backup, restart this node",
                member.address
            ))),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// There is one but where DNS has not named any yet, which is waited for: nothing is taken out of the list.
    async fn first(&self, until: Instant) -> Result<Arc<Member>, Failure> {
        let mut news = self.seek.as_ref().map(|seek| seek.news());
        loop {
            if let Some(first) = lock(&self.all).first() {
                return Ok(Arc::clone(first));
            }
            let (Some(seek), Some(news)) = (&self.seek, &mut news) else {
                let why = "no member of etcd is named";
                return Err(Failure::NotSent(why.to_owned()));
            };
            if timeout_at(until, news.changed()).await.is_err() {
                return Err(Failure::NotSent(seek.why()));
            }
        }
    }

    fn count(&self) -> usize {
        lock(&self.all).len().max(1)
    }

    /// Unless another one is first already. A member that fails may be one that has left: whoever answers next is asked
    /// for those that there are.
    fn put_last(&self, member: &Arc<Member>) {
        let mut all = lock(&self.all);
        if all.first().is_some_and(|first| Arc::ptr_eq(first, member)) {
            all.rotate_left(1);
            *lock(&self.discovered) = None;
        }
    }

    /// Asks the cluster for its members, now and then, in the background.
    fn discover(self: &Arc<Self>, member: &Arc<Member>) {
        if !self.options.discover {
            return;
        }
        let mut last = lock(&self.discovered);
        if last.is_some_and(|last| last.elapsed() < DISCOVERY) {
            return;
        }
        *last = Some(Instant::now());
        let (members, member) = (Arc::clone(self), Arc::clone(member));
        self.runtime.spawn(async move {
            let until = members.deadline();
            let question = proto::MemberListRequest {};
            let asked = Box::pin(members.ask_at::<proto::MemberListResponse>(
                &member,
                MEMBER_LIST,
                &question,
                until,
                until,
            ));
            match asked.await {
                Ok(answer) => members.learn(&member.address, &answer.members),
                Err(failure) => tracing::debug!(?failure, "etcd does not name its members"),
            }
        });
    }

    fn learn(&self, told_by: &str, told: &[proto::Member]) {
        let urls = told.iter().flat_map(|member| &member.client_urls);
        let found = srv::addresses(urls, told_by, self.options.tls.is_some());
        self.named(Source::Cluster, &found);
    }

    /// What was configured stays; what is found comes after it, and goes when nobody names it any more. Who answered
    /// last stays until another one does: whoever names members may be wrong. Nobody found is nothing said.
    fn named(&self, by: Source, found: &[String]) {
        if found.is_empty() {
            return;
        }
        let mut all = lock(&self.all);
        for address in found {
            if !all.iter().any(|known| known.address == *address) {
                tracing::debug!(member = address, "etcd has another member");
                all.push(Member::learnt(address));
            }
        }
        let answered = lock(&self.answered);
        all.retain(|member| {
            let mut named = lock(&member.named);
            match found.contains(&member.address) {
                true => named.insert(by),
                false => named.remove(&by),
            };
            let last = answered.as_ptr() == Arc::as_ptr(member);
            let stays = member.configured || !named.is_empty() || last;
            if !stays {
                tracing::debug!(member = member.address, "etcd has a member no more");
            }
            stays
        });
    }
}

/// A question under way. Callers have limits of their own, shorter than ours: one that gives up says as much of a member
/// as a failure, and must not be led to the same one the next time.
struct Attempt<'a> {
    members: &'a Members,
    member: &'a Arc<Member>,
    begun: Instant,
    over: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.over && self.begun.elapsed() >= GIVEN_UP {
            self.members.put_last(self.member);
        }
    }
}

/// The way to the member that serves a stream.
#[derive(Debug)]
pub(super) struct Line {
    members: Arc<Members>,
    member: Arc<Member>,
}

impl Line {
    pub(super) fn address(&self) -> &str {
        &self.member.address
    }

    /// The stream is silent: others are asked first from now on, and this one over a new connection.
    pub(super) async fn give_up(self) {
        self.members.put_last(&self.member);
        self.member.open.lock().await.take();
    }

    /// Whether what the stream says is of the cluster that we know.
    pub(super) fn check(&self, answer: &impl Answer) -> Result<(), Failure> {
        self.members.same_cluster(answer, &self.member)
    }
}

impl Member {
    fn configured(address: &str) -> Arc<Self> {
        Self::at(address, true)
    }

    fn learnt(address: &str) -> Arc<Self> {
        Self::at(address, false)
    }

    fn at(address: &str, configured: bool) -> Arc<Self> {
        Arc::new(Self {
            address: address.to_owned(),
            configured,
            named: Mutex::default(),
            open: tokio::sync::Mutex::default(),
        })
    }

    /// Calls under way on the connection go on; new ones get another.
    async fn hang_up(&self, channel: &Channel) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|it| it.is_same(channel)) {
            *open = None;
        }
    }
}

async fn connect(address: String, options: EtcdOptions) -> Result<Channel, String> {
    let scheme = options.tls.as_ref().map_or("http", |_| "https");
    let stream = dial::tcp(&address).await?;
    let stream = dial::secured(stream, &address, options.tls.as_ref(), Spoken::Http2).await?;
    let opened = Channel::open(stream, scheme, &address).await;
    opened.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(members: &Members) -> Vec<String> {
        let all = lock(&members.all);
        all.iter().map(|member| member.address.clone()).collect()
    }

    #[tokio::test]
    async fn a_member_that_nobody_names_any_more_goes() {
        let members = Members::new(EtcdOptions::new(vec!["a:1".to_owned()], "/"));
        let named = |by, found: &[&str]| {
            let found: Vec<_> = found.iter().map(|&it| it.to_owned()).collect();
            members.named(by, &found);
            addresses(&members).join(" ")
        };
        assert_eq!(named(Source::Dns, &["b:1", "c:1"]), "a:1 b:1 c:1");
        assert_eq!(named(Source::Cluster, &["c:1", "d:1"]), "a:1 b:1 c:1 d:1");
        assert_eq!(named(Source::Dns, &[]), "a:1 b:1 c:1 d:1", "DNS is away");
        let left = named(Source::Dns, &["b:1"]);
        assert_eq!(left, "a:1 b:1 c:1 d:1", "the cluster names it still");

        let answers = |n: usize| {
            let member = Arc::downgrade(&lock(&members.all)[n]);
            *lock(&members.answered) = member;
        };
        answers(2);
        assert_eq!(named(Source::Cluster, &["e:1"]), "a:1 b:1 c:1 e:1");
        answers(3);
        assert_eq!(named(Source::Cluster, &["e:1"]), "a:1 b:1 e:1");
        assert_eq!(named(Source::Dns, &["e:1"]), "a:1 e:1");
    }
}
