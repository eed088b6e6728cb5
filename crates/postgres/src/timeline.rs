//! Timeline histories: where each timeline left the one before it.

use ha::{Lsn, Timeline};

/// One line of a `.history` file: this timeline ended at `end`, where its successor begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    pub timeline: Timeline,
    pub end: Lsn,
    pub reason: String,
}

/// A timeline and all its ancestors, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub timeline: Timeline,
    pub switches: Vec<Switch>,
}

impl History {
    /// Timeline 1 has no history file; it is its own whole history.
    pub fn first() -> Self {
        Self {
            timeline: Timeline(1),
            switches: Vec::new(),
        }
    }

    /// Reads the text of `<timeline>.history`. `None` if it is not one: timelines must rise, and so must their ends.
    pub fn parse(timeline: Timeline, text: &str) -> Option<Self> {
        let mut switches: Vec<Switch> = Vec::new();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, char::is_whitespace);
            let ended = Timeline(fields.next()?.parse().ok()?);
            let end: Lsn = fields.next()?.trim().parse().ok()?;
            let reason = fields.next().unwrap_or_default().trim().to_owned();
            if switches
                .last()
                .is_some_and(|last| last.timeline >= ended || last.end > end)
            {
                return None;
            }
            switches.push(Switch {
                timeline: ended,
                end,
                reason,
            });
        }
        if switches
            .last()
            .is_some_and(|last| last.timeline >= timeline)
        {
            return None;
        }
        Some(Self { timeline, switches })
    }

    /// Where `timeline` ended in this history: `Some(None)` when it is the newest, `None` when it is not part of it.
    pub fn end_of(&self, timeline: Timeline) -> Option<Option<Lsn>> {
        if timeline == self.timeline {
            return Some(None);
        }
        self.switches
            .iter()
            .find(|s| s.timeline == timeline)
            .map(|s| Some(s.end))
    }

    /// The last position that both histories share and its timeline: the end of their newest common timeline in
    /// either. `None` as position: one never left that timeline, so they share as much as both have.
    ///
    /// It compares numbers and switch points. Two histories that call different timelines by one number look the
    /// same here; only the epochs can tell (the caller's business).
    pub fn fork(&self, other: &Self) -> Option<(Timeline, Option<Lsn>)> {
        let newest = |history: &Self| {
            let mut all: Vec<Timeline> = history.switches.iter().map(|s| s.timeline).collect();
            all.push(history.timeline);
            all
        };
        let (mine, theirs) = (newest(self), newest(other));
        let mut common = None;
        for (a, b) in mine.iter().zip(&theirs) {
            if a != b {
                break;
            }
            let (left, right) = (self.end_of(*a).flatten(), other.end_of(*a).flatten());
            let end = match (left, right) {
                (Some(left), Some(right)) => Some(left.min(right)),
                (left, right) => left.or(right),
            };
            common = Some((*a, end));
            // From different ends on, the next timelines are different ones, whatever their numbers.
            if left != right {
                break;
            }
        }
        common
    }
}

/// The name of a history file inside `pg_wal`.
pub(crate) fn history_file(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

/// The name of the WAL segment that holds `lsn`.
pub(crate) fn segment_file(timeline: Timeline, lsn: Lsn, segment_size: u64) -> String {
    let segments_per_id = 0x1_0000_0000 / segment_size.max(1);
    let number = lsn.0 / segment_size.max(1);
    format!(
        "{:08X}{:08X}{:08X}",
        timeline.0,
        number / segments_per_id,
        number % segments_per_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, switches: &[(u32, u64)]) -> History {
        let switches = switches
            .iter()
            .map(|(t, end)| Switch {
                timeline: Timeline(*t),
                end: Lsn(*end),
                reason: String::new(),
            })
            .collect();
        History {
            timeline: Timeline(timeline),
            switches,
        }
    }

    #[test]
    fn history_files_are_read() {
        let text =
            "1\t0/3000060\tno recovery target specified\n\n# x\n2\t0/5000000\tbefore 2000-01-01\n";
        let read = History::parse(Timeline(3), text).unwrap();
        assert_eq!(read.end_of(Timeline(1)), Some(Some(Lsn(0x300_0060))));
        assert_eq!(read.end_of(Timeline(3)), Some(None));
        assert_eq!(read.end_of(Timeline(4)), None);
        assert_eq!(read.switches[1].reason, "before 2000-01-01");
        for bad in [
            "x\t0/1",
            "1",
            "1 zz",
            "2 0/1\n1 0/2",
            "1 0/5\n2 0/1",
            "3 0/1",
        ] {
            assert_eq!(History::parse(Timeline(3), bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_fork_is_the_last_thing_in_common() {
        let root = History::first();
        let left = history(2, &[(1, 100)]);
        let right = history(3, &[(1, 90)]);
        assert_eq!(root.fork(&left), Some((Timeline(1), Some(Lsn(100)))));
        assert_eq!(left.fork(&right), Some((Timeline(1), Some(Lsn(90)))));
        assert_eq!(left.fork(&left), Some((Timeline(2), None)));
        // One number, two histories: 2 began at another place.
        assert_eq!(
            left.fork(&history(2, &[(1, 90)])),
            Some((Timeline(1), Some(Lsn(90))))
        );
        let long = history(4, &[(1, 100), (2, 200)]);
        assert_eq!(left.fork(&long), Some((Timeline(2), Some(Lsn(200)))));
        assert_eq!(history(3, &[(2, 5)]).fork(&root), None);
    }

    #[test]
    fn segments_are_named_as_postgres_does() {
        let mib16 = 16 << 20;
        assert_eq!(
            segment_file(Timeline(1), Lsn(0x174_14F8), mib16),
            "000000010000000000000001"
        );
        assert_eq!(
            segment_file(Timeline(2), Lsn(0x1_FF00_0000), mib16),
            "0000000200000001000000FF"
        );
        assert_eq!(history_file(Timeline(31)), "0000001F.history");
    }
}
