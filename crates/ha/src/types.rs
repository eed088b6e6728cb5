//! The words of the field as types of their own, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A node's name: 1 to 48 characters of `a-z A-Z 0-9 _ . -`, beginning with a letter or digit.
/// The name becomes an `application_name`, a key of the store and a file name, so it stays plain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Why a text is no node name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node name {0:?} is not 1 to 48 of `a-z A-Z 0-9 _ . -` beginning with a letter or digit")]
pub struct BadNodeName(pub String);

impl NodeName {
    pub fn new(text: impl Into<String>) -> Result<Self, BadNodeName> {
        let text = text.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let begins = text
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric());
        if begins && text.len() <= 48 && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(BadNodeName(text))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The physical replication slot of this node, by Patroni's rule: lower case, `-` and `.` become `_`.
    pub fn slot(&self) -> String {
        self.0.to_ascii_lowercase().replace(['-', '.'], "_")
    }

    /// The slot that this node streams by from the leader of `epoch`. A new leadership of the same node has none of
    /// that name, so a WAL receiver that comes back by itself is refused until its agent has followed anew.
    pub fn slot_of_epoch(&self, epoch: Epoch) -> String {
        format!("{}_e{epoch}", self.slot())
    }

    /// The `application_name` by which this node streams from the leader of `epoch`, and by which commits wait for it.
    /// Postgres counts whoever has the name, so it is one that nobody else takes by chance.
    pub fn stream_of_epoch(&self, epoch: Epoch) -> String {
        format!("{self}_e{epoch}")
    }

    /// Whose stream has this `application_name`, and of which epoch.
    pub fn of_stream(application_name: &str) -> Option<(Self, Epoch)> {
        let (name, epoch) = application_name.rsplit_once("_e")?;
        let plain = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
        let epoch = epoch.parse().ok().filter(|_| plain)?;
        Some((Self::new(name).ok()?, Epoch(epoch)))
    }
}

impl TryFrom<String> for NodeName {
    type Error = BadNodeName;
    fn try_from(text: String) -> Result<Self, BadNodeName> {
        Self::new(text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl FromStr for NodeName {
    type Err = BadNodeName;
    fn from_str(text: &str) -> Result<Self, BadNodeName> {
        Self::new(text)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The number of a leadership: rises by one with each claim and never goes back. The fencing token.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const NONE: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// PostgreSQL's timeline number. Not unique: two histories may carry the same one (see [`crate::Lineage`]).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the WAL, in bytes. Prints as PostgreSQL does: `0/3000060`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const ZERO: Self = Self(0);

    /// Bytes from `earlier` to `self`; 0 when `self` is not ahead.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF))
    }
}

/// Why a text is no LSN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN such as 0/3000060")]
pub struct BadLsn(pub String);

impl FromStr for Lsn {
    type Err = BadLsn;
    fn from_str(text: &str) -> Result<Self, BadLsn> {
        let bad = || BadLsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |digits: &str| {
            let plain =
                (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain {
                u64::from_str_radix(digits, 16).ok()
            } else {
                None
            }
        };
        let high = part(high).ok_or_else(bad)?;
        let low = part(low).ok_or_else(bad)?;
        Ok(Self(high << 32 | low))
    }
}

/// A moment on CLOCK_BOOTTIME of the local machine, in nanoseconds since its boot.
/// `ha` is told the time; it never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// Time from `earlier` to `self`; zero when `self` is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// PostgreSQL's system identifier: which cluster a data directory belongs to. Decimal text in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_prints_and_parses_as_postgres_does() {
        let lsn: Lsn = "16/B374D848".parse().expect("a plain LSN");
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        for bad in ["", "/", "0", "0/", "x/1", "1/123456789", "+1/2", "1/2/3"] {
            assert_eq!(bad.parse::<Lsn>(), Err(BadLsn(bad.to_owned())), "{bad:?}");
        }
    }

    #[test]
    fn node_names_stay_plain() {
        for good in ["a", "node_1", "n-1.example", "9lives"] {
            assert!(NodeName::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "_x",
            "a b",
            "a\"b",
            "a,b",
            "*",
            "a\n",
            "__placeholder",
            &"x".repeat(64),
        ] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stream_tells_its_node_and_epoch() {
        let node = NodeName::new("Node-1.b_e2").expect("plain");
        let stream = node.stream_of_epoch(Epoch(17));
        assert_eq!(stream, "Node-1.b_e2_e17");
        assert_eq!(NodeName::of_stream(&stream), Some((node, Epoch(17))));
        for other in ["b", "b_e", "b_e+1", "_e1", "b_ex", "walreceiver"] {
            assert_eq!(NodeName::of_stream(other), None, "{other:?}");
        }
    }

    #[test]
    fn slot_names_follow_patroni() {
        assert_eq!(NodeName::new("Node-1.b").expect("plain").slot(), "node_1_b");
    }
}
