//! A server that was started with one client's settings, lent to a client that came with others.
//!
//! **Invariant:** on whichever server a session runs, each of its requests begins with the settings that it came with or
//! has made, and answers of no query depend on another client's.
//!
//! What differs is set on the server like the settings that the session has made itself. What only the startup packet
//! can make is the value that RESET goes back to: `session/mending.rs` sees to that.
//!
//! Only a setting may differ whose value PostgreSQL reports, so that it is known what stands on the server whoever has
//! changed it, and by which no query answers otherwise: behind a RESET the server's own value stands for a moment, and a
//! time zone or an order of dates would then be another client's.
//!
//! It does not see who looks them up in `pg_settings`, where `reset_val` and `source` are the server's own.

use super::{Parameters, Server, Startup, Welcome};
use crate::journal::{Settings, literal, set_config_sql};
use std::sync::Arc;

/// The settings that may differ, as PostgreSQL reports their names.
const CARRIED: [&str; 1] = ["application_name"];
/// May be written otherwise, but must be the same: statements are shared by their bytes.
const ENCODING: &str = "client_encoding";

/// Some of the settings that may differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Names(u8);

/// See the module.
#[derive(Debug)]
pub(crate) struct Loan {
    server: Arc<Welcome>,
    session: Arc<Welcome>,
    /// The settings that differ.
    names: Names,
    /// What makes the server look like a connection of the session's own.
    settings: Arc<Settings>,
    /// What such a connection would report at its login.
    pub(crate) own: Arc<Parameters>,
}

impl Names {
    pub(crate) const ALL: Self = Self((1 << CARRIED.len()) - 1);

    /// The one with this name, in letters of any size.
    pub(crate) fn one(name: &[u8]) -> Self {
        let mut all = CARRIED.iter();
        let at = all.position(|known| known.as_bytes().eq_ignore_ascii_case(name));
        Self(at.map_or(0, |at| 1 << at))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each by itself, with its name.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Self, &'static str)> {
        let all = CARRIED.iter().enumerate();
        let each = all.map(|(at, name)| (Self(1 << at), *name));
        each.filter(move |(one, _)| self.has(*one))
    }
}

impl Loan {
    /// Of a server to a session that came with these settings, and knows what a server says to them; `None`: what
    /// differs is more than can be set exactly.
    pub(crate) fn new(startup: &Startup, session: &Arc<Welcome>, to: &Server) -> Option<Self> {
        let server = &to.welcome;
        let names = difference(startup, session, &to.startup, server)?;
        let mut settings = Settings::new();
        let mut own = Arc::clone(&server.parameters);
        for (_, name) in names.iter() {
            let value = session.parameters.get(name.as_bytes())?;
            let sql = set_config_sql(name.as_bytes(), value);
            settings.insert(name.to_ascii_lowercase().into(), sql);
            Arc::make_mut(&mut own).insert(name.as_bytes().into(), value.clone());
        }
        if own == session.parameters {
            own = Arc::clone(&session.parameters);
        }
        Some(Self {
            server: Arc::clone(server),
            session: Arc::clone(session),
            names,
            settings: Arc::new(settings),
            own,
        })
    }

    /// Whether it is this session's, and of a server that began as this one.
    pub(crate) fn is(&self, session: &Arc<Welcome>, of: &Server) -> bool {
        Arc::ptr_eq(&self.server, &of.welcome) && Arc::ptr_eq(&self.session, session)
    }

    /// All that the server must be set to for a session with these settings.
    pub(crate) fn with(&self, settings: &Arc<Settings>) -> Arc<Settings> {
        self.joined(settings, self.names)
    }

    /// What is left of that, by what the server has reported.
    pub(crate) fn left(&self, settings: &Arc<Settings>, now: &Parameters) -> Arc<Settings> {
        let stands = |name: &str| now.get(name.as_bytes()) == self.own.get(name.as_bytes());
        let standing = self.names.iter().filter(|(_, name)| stands(name));
        let standing = standing.fold(Names::default(), |all, (one, _)| all.with(one));
        self.joined(settings, standing)
    }

    fn joined(&self, settings: &Arc<Settings>, names: Names) -> Arc<Settings> {
        if names == self.names && settings.is_empty() {
            return Arc::clone(&self.settings);
        }
        let mut all = Settings::clone(settings);
        for (_, name) in names.iter() {
            let name = name.to_ascii_lowercase();
            if let Some(sql) = self.settings.get(&*name) {
                all.entry(name.into()).or_insert_with(|| sql.clone());
            }
        }
        Arc::new(all)
    }

    /// Those that differ, of these.
    pub(crate) fn about(&self, names: Names) -> Names {
        self.names.and(names)
    }

    /// Those that have the value now which the server began with, and the session did not.
    pub(crate) fn astray(&self, now: &Parameters) -> Names {
        let began = &self.server.parameters;
        let strays = |name: &str| now.get(name.as_bytes()) == began.get(name.as_bytes());
        let astray = self.names.iter().filter(|(_, name)| strays(name));
        astray.fold(Names::default(), |all, (one, _)| all.with(one))
    }

    /// What a client believes that was not told of these.
    pub(crate) fn masked(&self, now: &Arc<Parameters>, names: Names) -> Arc<Parameters> {
        let mut told = Parameters::clone(now);
        for (_, name) in names.iter() {
            if let Some(value) = self.own.get(name.as_bytes()) {
                told.insert(name.as_bytes().into(), value.clone());
            }
        }
        match told == *self.own {
            true => Arc::clone(&self.own),
            false => Arc::new(told),
        }
    }

    /// Whether the session itself has set a setting to this; if not, it is the loan that has. `reset`: what may have the
    /// value that the server began with because it was reset.
    pub(crate) fn is_from_session(&self, name: &str, sql: &[u8], reset: Names) -> bool {
        let one = Names::one(name.as_bytes());
        let is_began = || {
            let known = reset.and(one).iter().next();
            known.is_some_and(|(_, name)| {
                let began = self.server.parameters.get(name.as_bytes());
                began.is_some_and(|began| *set_config_sql(name.as_bytes(), began) == *sql)
            })
        };
        self.settings.get(name).is_none_or(|own| **own != *sql) && !is_began()
    }

    /// Gives them the session's values again. It takes no snapshot: what must come before the first query of a
    /// transaction still may.
    pub(crate) fn set_again(&self, names: Names, local: bool) -> Vec<Vec<u8>> {
        let one = |name: &str| {
            let mut sql = if local { "SET LOCAL " } else { "SET " }
                .to_owned()
                .into_bytes();
            sql.extend_from_slice(name.as_bytes());
            sql.extend_from_slice(b" TO ");
            self.value(name, &mut sql);
            sql
        };
        names.iter().map(|(_, name)| one(name)).collect()
    }

    fn value(&self, name: &str, sql: &mut Vec<u8>) {
        let value = self.own.get(name.as_bytes());
        literal(sql, value.map_or(&[][..], AsRef::as_ref));
    }
}

/// The settings that differ between what a session and what a server began with.
fn difference(
    startup: &Startup,
    session: &Welcome,
    of: &Startup,
    server: &Welcome,
) -> Option<Names> {
    let is_other = |(name, _): &&(Box<[u8]>, Box<[u8]>)| !is_carried(name);
    if !startup
        .iter()
        .filter(is_other)
        .eq(of.iter().filter(is_other))
    {
        return None;
    }
    let mut names = Names::default();
    for name in CARRIED.into_iter().chain([ENCODING]) {
        let (wanted, there) = (find(startup, name)?, find(of, name)?);
        if wanted == there {
            continue;
        }
        // What the session has not said is for its server to say.
        if wanted.is_none() && !session.is_of(server) {
            return None;
        }
        let of = |welcome: &Welcome| welcome.parameters.get(name.as_bytes()).cloned();
        let (value, began) = (of(session)?, of(server)?);
        if value == began {
            continue;
        }
        if name == ENCODING || !value.is_ascii() {
            return None;
        }
        names = names.with(Names::one(name.as_bytes()));
    }
    Some(names)
}

fn is_carried(name: &[u8]) -> bool {
    !Names::one(name).is_empty() || name.eq_ignore_ascii_case(ENCODING.as_bytes())
}

/// What is said of a setting; `None`: it is said twice.
fn find<'a>(startup: &'a Startup, name: &str) -> Option<Option<&'a [u8]>> {
    let mut said = startup
        .iter()
        .filter(|(said, _)| said.eq_ignore_ascii_case(name.as_bytes()));
    let first = said.next().map(|(_, value)| &**value);
    said.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Said;
    use ha::Epoch;

    fn startup(said: &[(&str, &str)]) -> Startup {
        let pair = |(name, value): &(&str, &str)| (bytes(name), bytes(value));
        let mut startup: Startup = said.iter().map(pair).collect();
        startup.sort();
        startup
    }

    fn bytes(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    /// What a server would say to these, whose defaults are empty.
    fn welcome(said: &[(&str, &str)], epoch: u64) -> Arc<Welcome> {
        let mut parameters = Parameters::new();
        for name in CARRIED.into_iter().chain([ENCODING]) {
            let said = said
                .iter()
                .find(|(said, _)| said.eq_ignore_ascii_case(name));
            let value = said.map_or(String::new(), |(_, value)| value.to_uppercase());
            parameters.insert(bytes(name), bytes(&value));
        }
        let of = Said {
            epoch: Epoch(epoch),
            address: "here".into(),
            generation: 0,
        };
        Welcome::new(&Arc::new(parameters), of)
    }

    fn check(session: &[(&str, &str)], server: &[(&str, &str)], epoch: u64) -> String {
        let (of, to) = (welcome(session, 1), welcome(server, epoch));
        match difference(&startup(session), &of, &startup(server), &to) {
            None => "not lent".to_owned(),
            Some(names) => names
                .iter()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    #[test]
    fn only_a_name_may_differ() {
        let (a, b) = (("application_name", "a"), ("application_name", "b"));
        let (utc, lima) = (("TimeZone", "UTC"), ("TimeZone", "America/Lima"));
        assert_eq!(check(&[a], &[a], 1), "");
        assert_eq!(check(&[a], &[b], 1), "application_name");
        assert_eq!(check(&[a], &[], 2), "application_name");
        assert_eq!(check(&[a, utc], &[b, utc], 2), "application_name");
        assert_eq!(check(&[a, utc], &[b, lima], 2), "not lent");
        assert_eq!(check(&[utc], &[], 1), "not lent");
        // What a session leaves open, its server says.
        assert_eq!(check(&[], &[a], 1), "application_name");
        assert_eq!(check(&[], &[a], 2), "not lent");
        let digits = ("extra_float_digits", "2");
        assert_eq!(check(&[a, digits], &[b, digits], 1), "application_name");
        assert_eq!(check(&[a, digits], &[a], 1), "not lent");
        let options = |value| [("options", value)];
        assert_eq!(check(&options("-c a=1"), &options("-c a=2"), 1), "not lent");
        let encoding = |value| [("client_encoding", value)];
        assert_eq!(check(&encoding("utf8"), &encoding("UTF8"), 1), "");
        assert_eq!(check(&encoding("utf8"), &encoding("latin1"), 1), "not lent");
        assert_eq!(check(&[utc, lima], &[utc], 1), "not lent");
        assert_eq!(
            check(&[("application_name", "\u{e4}")], &[a], 1),
            "not lent"
        );
    }
}
