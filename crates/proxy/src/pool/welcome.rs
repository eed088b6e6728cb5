//! What servers say at a login, for each set of settings that one was started with.
//!
//! **Invariant:** what is told of settings here, a server has said at a login with them. Of the name of an application
//! alone it is known without asking: PostgreSQL refuses none.

use super::{Parameters, Server, Startup};
use ha::Epoch;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many are remembered for each pool.
const REMEMBERED: usize = 64;

const NAME: &[u8] = b"application_name";
/// A longer one may be cut, in bytes.
const NAME_MAX: usize = 63;

/// One of them.
#[derive(Debug)]
pub(crate) struct Welcome {
    pub(crate) parameters: Arc<Parameters>,
    of: Said,
}

/// Which server said so, and how often everybody had been told to connect anew: what a client leaves open is as it was
/// there and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) epoch: Epoch,
    pub(super) address: Box<str>,
    pub(super) generation: u64,
}

/// Those of a pool.
#[derive(Debug, Default)]
pub(super) struct Welcomes(Mutex<HashMap<Arc<Startup>, Arc<Welcome>>>);

impl Welcome {
    pub(super) fn new(parameters: &Arc<Parameters>, of: Said) -> Arc<Self> {
        let parameters = Arc::clone(parameters);
        Arc::new(Self { parameters, of })
    }

    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.of == other.of
    }

    /// The same for a client with another name.
    fn named(&self, name: &[u8]) -> Arc<Self> {
        let mut parameters = Parameters::clone(&self.parameters);
        parameters.insert(NAME.into(), name.into());
        Self::new(&Arc::new(parameters), self.of.clone())
    }
}

impl Welcomes {
    /// What a server would say at a login with these settings.
    pub(super) fn of(&self, startup: &Arc<Startup>) -> Option<Arc<Welcome>> {
        let mut welcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = welcomes.get(startup) {
            return Some(Arc::clone(known));
        }
        let (_, name) = startup.iter().find(|(name, _)| **name == *NAME)?;
        let is_plain = name.iter().all(|byte| (b' '..=b'~').contains(byte));
        if !is_plain || name.len() > NAME_MAX {
            return None;
        }
        let mut known = welcomes.iter();
        let (_, alike) = known.find(|(known, _)| are_alike(known, startup))?;
        let named = alike.named(name);
        // What was really said is worth more.
        if welcomes.len() < REMEMBERED / 2 {
            welcomes.insert(Arc::clone(startup), Arc::clone(&named));
        }
        Some(named)
    }

    /// A server has let somebody in. From now on there is one copy of all that is the same.
    pub(super) fn learn(&self, server: &mut Server) {
        let mut welcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((startup, known)) = welcomes.get_key_value(&server.startup) {
            server.startup = Arc::clone(startup);
            if known.parameters == server.welcome.parameters {
                server.mirror.begin_with(&known.parameters);
                if known.is_of(&server.welcome) {
                    server.welcome = Arc::clone(known);
                    return;
                }
                server.welcome = Welcome::new(&known.parameters, server.welcome.of.clone());
            }
        }
        if welcomes.len() >= REMEMBERED && !welcomes.contains_key(&server.startup) {
            welcomes.clear();
        }
        let (startup, welcome) = (Arc::clone(&server.startup), Arc::clone(&server.welcome));
        welcomes.insert(startup, welcome);
    }
}

/// Whether they differ by the name of the application alone.
fn are_alike(one: &Startup, other: &Startup) -> bool {
    let is_other = |(name, _): &&(Box<[u8]>, Box<[u8]>)| **name != *NAME;
    // In letters of another size it is none that is understood here.
    let is_name = |(name, _): &(Box<[u8]>, Box<[u8]>)| name.eq_ignore_ascii_case(NAME);
    let is_once = |startup: &Startup| startup.iter().filter(|one| is_name(one)).count() <= 1;
    is_once(one)
        && is_once(other)
        && one
            .iter()
            .filter(is_other)
            .eq(other.iter().filter(is_other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(said: &[(&str, &str)]) -> Arc<Startup> {
        let bytes = |text: &str| text.as_bytes().into();
        let pair = |(name, value): &(&str, &str)| (bytes(name), bytes(value));
        Arc::new(said.iter().map(pair).collect())
    }

    #[test]
    fn a_name_alone_is_welcome_unasked() {
        let welcomes = Welcomes::default();
        let zone = ("TimeZone", "UTC");
        let parameters = Arc::new(Parameters::new());
        let of = Said {
            epoch: Epoch(1),
            address: "here".into(),
            generation: 0,
        };
        let known = Welcome::new(&parameters, of);
        let of = |said: &[_]| {
            let welcome = welcomes.of(&startup(said))?;
            let name = welcome.parameters.get(NAME)?;
            Some(String::from_utf8_lossy(name).into_owned())
        };
        assert_eq!(of(&[("application_name", "a"), zone]), None);
        let mut all = welcomes.0.lock().unwrap();
        all.insert(startup(&[("application_name", "x"), zone]), known);
        drop(all);
        assert_eq!(of(&[("application_name", "a"), zone]).as_deref(), Some("a"));
        assert_eq!(of(&[("application_name", "a")]), None);
        assert_eq!(of(&[("application_name", "a"), ("TimeZone", "utc")]), None);
        assert_eq!(of(&[zone]), None);
        assert_eq!(of(&[("application_name", "\u{e4}"), zone]), None);
        let long = "a".repeat(64);
        assert_eq!(of(&[("application_name", &long), zone]), None);
        assert_eq!(
            of(&[("application_name", "a"), ("Application_Name", "b"), zone]),
            None
        );
    }
}
