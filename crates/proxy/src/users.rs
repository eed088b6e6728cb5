//! The users file, in PgBouncer's form: `"user" "secret"`, a line each.
//!
//! A secret is a password, an MD5 hash as PostgreSQL stores it (`md5…`), or a SCRAM verifier.
//!
//! **Invariant:** no secret has a printable form.

use std::collections::HashMap;
use std::fmt;
use wire::scram::Verifier;

/// Who may connect.
#[derive(Debug, Clone, Default)]
pub struct Users {
    secrets: HashMap<String, Secret>,
}

/// What is known of a user's password.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password(String),
    /// The 32 hexadecimal digits behind `md5`.
    Md5(String),
    Scram(Verifier),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Scram(_) => "Scram(..)",
        })
    }
}

/// A line that is none of a users file. It is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadLine {
    pub line: usize,
    pub why: &'static str,
}

impl Users {
    /// Reads the text of a file. Lines that are empty, or begin with `;` or `#`, are passed over.
    ///
    /// # Errors
    /// The first line that can't be read.
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let mut secrets = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start_matches('\u{feff}').trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let bad = |why| BadLine {
                line: number + 1,
                why,
            };
            let quoted = "is not `\"user\" \"secret\"`";
            let (user, rest) = unquote(line).ok_or_else(|| bad(quoted))?;
            let (secret, _) = unquote(rest.trim_start()).ok_or_else(|| bad(quoted))?;
            if user.is_empty() {
                return Err(bad("has an empty user name"));
            }
            let secret =
                Secret::of(secret).ok_or_else(|| bad("has a SCRAM verifier that is none"))?;
            secrets.insert(user, secret);
        }
        Ok(Self { secrets })
    }

    /// Whether whoever reads the file knows somebody's password.
    pub fn has_passwords(&self) -> bool {
        let mut secrets = self.secrets.values();
        secrets.any(|secret| matches!(secret, Secret::Password(text) if !text.is_empty()))
    }

    pub fn secret(&self, user: &str) -> Option<&Secret> {
        self.secrets.get(user)
    }
}

impl Secret {
    /// A password without a letter: whoever has it comes in by what asks for none, and by nothing else.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Password(text) if text.is_empty())
    }

    pub(crate) fn of(text: String) -> Option<Self> {
        if text.starts_with("SCRAM-SHA-256$") {
            return Verifier::parse(&text).ok().map(Self::Scram);
        }
        let digest = text.strip_prefix("md5").filter(|digits| {
            digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        match digest {
            Some(digits) => Some(Self::Md5(digits.to_ascii_lowercase())),
            None => Some(Self::Password(text)),
        }
    }
}

/// A text in double quotes, a quote within it doubled; and what is behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut out = String::new();
    loop {
        let (before, behind) = rest.split_once('"')?;
        out.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                out.push('"');
                rest = more;
            }
            None => return Some((out, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbouncers_file_is_read() {
        let text = "; comment\n\n\"bob\" \"se\"\"cret\"\n\"eve\" \"md5d41d8cd98f00b204e9800998ecf8427E\" extra\n";
        let users = Users::parse(text).unwrap();
        assert_eq!(
            users.secret("bob"),
            Some(&Secret::Password("se\"cret".into()))
        );
        assert_eq!(
            users.secret("eve"),
            Some(&Secret::Md5("d41d8cd98f00b204e9800998ecf8427e".into()))
        );
        assert_eq!(users.secret("mallory"), None);
        assert_eq!(format!("{:?}", users.secret("bob")), "Some(Password(..))");
    }

    #[test]
    fn a_bad_line_is_named_and_not_repeated() {
        for (text, line) in [
            ("\"a\" \"b\"\nbob hunter2\n", 2),
            ("\"a\" \"b", 1),
            ("\"\" \"b\"", 1),
            ("\"a\" \"SCRAM-SHA-256$nonsense\"", 1),
        ] {
            let bad = Users::parse(text).unwrap_err();
            assert_eq!(bad.line, line, "{text}");
            assert!(!bad.to_string().contains("hunter2"), "{bad}");
        }
    }
}
