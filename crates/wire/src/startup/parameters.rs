//! What the parameters of a startup packet mean.

use super::StartupMessage;
use std::ffi::CStr;

/// Whether the connection is to stream WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary connection.
    No,
    Physical,
    /// In a database; SQL may be spoken too.
    Logical,
}

/// Names that begin so are options of the protocol, not settings of the server.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

impl<'a> StartupMessage<'a> {
    /// The value of a parameter; of the last one if it was given twice.
    pub fn parameter(&self, name: &str) -> Option<&'a CStr> {
        let named = |(known, _): &(&CStr, &CStr)| known.to_bytes() == name.as_bytes();
        self.parameters.iter().filter(named).last().map(|it| it.1)
    }

    /// Who; a server refuses a client that does not say (28000).
    pub fn user(&self) -> Option<&'a CStr> {
        self.parameter("user").filter(|user| !user.is_empty())
    }

    /// Which database: that of the user's name if none was named.
    pub fn database(&self) -> Option<&'a CStr> {
        let named = self.parameter("database").filter(|name| !name.is_empty());
        named.or_else(|| self.user())
    }

    /// # Errors
    /// The parameter as it stands if it is neither a boolean nor `database` (22023).
    pub fn replication(&self) -> Result<Replication, &'a CStr> {
        let Some(said) = self.parameter("replication") else {
            return Ok(Replication::No);
        };
        if said.to_bytes() == b"database" {
            return Ok(Replication::Logical);
        }
        match boolean(said.to_bytes()) {
            Some(true) => Ok(Replication::Physical),
            Some(false) => Ok(Replication::No),
            None => Err(said),
        }
    }

    /// Options of the protocol, with their prefix.
    pub fn protocol_options(&self) -> impl Iterator<Item = (&'a CStr, &'a CStr)> + use<'a> {
        let all = self.parameters.iter();
        all.filter(|(name, _)| name.to_bytes().starts_with(PROTOCOL_OPTION))
    }

    /// Everything that is a setting for the session, such as `DateStyle` or `options`.
    pub fn settings(&self) -> impl Iterator<Item = (&'a CStr, &'a CStr)> + use<'a> {
        self.parameters.iter().filter(|(name, _)| {
            let name = name.to_bytes();
            !matches!(name, b"user" | b"database" | b"replication")
                && !name.starts_with(PROTOCOL_OPTION)
        })
    }
}

/// A boolean as PostgreSQL reads it: a word or an unambiguous beginning of one, in any case.
fn boolean(text: &[u8]) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &[u8], least: usize| text.len() >= least && word.starts_with(&text);
    if begins(b"true", 1) || begins(b"yes", 1) || text == b"on" || text == b"1" {
        Some(true)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || text == b"0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::List;
    use crate::startup::Version;

    fn check(parameters: &[(&CStr, &CStr)], look: impl Fn(StartupMessage<'_>)) {
        let mut room = Vec::new();
        look(StartupMessage {
            version: Version::V3_0,
            parameters: List::write(parameters.iter().copied(), &mut room),
        });
    }

    #[test]
    fn the_last_of_two_values_counts() {
        check(&[(c"user", c"a"), (c"user", c"b")], |startup| {
            assert_eq!(startup.user(), Some(c"b"));
            assert_eq!(startup.database(), Some(c"b"));
        });
    }

    #[test]
    fn an_empty_user_is_no_user() {
        check(&[(c"user", c""), (c"database", c"d")], |startup| {
            assert_eq!(startup.user(), None);
            assert_eq!(startup.database(), Some(c"d"));
        });
    }

    #[test]
    fn replication_is_a_boolean_or_a_database() {
        for (said, meant) in [
            (c"true", Ok(Replication::Physical)),
            (c"ON", Ok(Replication::Physical)),
            (c"t", Ok(Replication::Physical)),
            (c"of", Ok(Replication::No)),
            (c"0", Ok(Replication::No)),
            (c"database", Ok(Replication::Logical)),
            (c"o", Err(c"o")),
            (c"", Err(c"")),
        ] {
            check(&[(c"replication", said)], |startup| {
                assert_eq!(startup.replication(), meant, "{said:?}");
            });
        }
        // A database of that name is only a name.
        check(&[(c"database", c"replication")], |startup| {
            assert_eq!(startup.replication(), Ok(Replication::No));
        });
    }

    #[test]
    fn options_of_the_protocol_are_no_settings() {
        let given = [
            (c"user", c"u"),
            (c"_pq_.x", c"1"),
            (c"options", c"-c a=b"),
            (c"TimeZone", c"UTC"),
        ];
        check(&given, |startup| {
            let settings: Vec<_> = startup.settings().map(|it| it.0).collect();
            assert_eq!(settings, [c"options", c"TimeZone"]);
            let options: Vec<_> = startup.protocol_options().collect();
            assert_eq!(options, [(c"_pq_.x", c"1")]);
        });
    }
}
