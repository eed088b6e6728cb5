//! A text that must not be printed.
//!
//! **Invariant:** no `Debug`, `Display` or `Serialize` of anything in this crate shows a password.

use std::fmt;

/// A password. Has no printable form; [`Secret::expose`] is called where it is used and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A role and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

impl Login {
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: Secret::new(password),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_prints_without_its_password() {
        let printed = format!("{:?}", Login::new("replicator", "s3cret"));
        assert!(
            printed.contains("replicator") && !printed.contains("s3cret"),
            "{printed}"
        );
    }
}
