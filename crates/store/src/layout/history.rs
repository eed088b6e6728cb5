//! `history`: every timeline of the cluster that ended, where, why, and who led from there.
//!
//! **Invariant:** it is shown and decides nothing: one that can't be read is written anew.

use ha::{Lsn, NodeName, Timeline};
use serde_json::{Value, json};

/// A timeline that ended, as a history file of PostgreSQL has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedTimeline {
    pub timeline: Timeline,
    pub end: Lsn,
    pub reason: String,
}

/// The value of `history` after `leader` began a timeline at the time `at`: a line each for all that ended before it.
/// What `stored` says of the same ends is kept. Of others, which nobody has written down, time and leader are not
/// known, except of the last. `lines_max`: older ones go (Patroni's `max_timelines_history`); 0 keeps all.
pub fn with_history(
    stored: Option<&str>,
    ended: &[EndedTimeline],
    leader: &NodeName,
    at: &str,
    lines_max: usize,
) -> String {
    let surplus = match lines_max {
        0 => 0,
        most => ended.len().saturating_sub(most),
    };
    let ended = &ended[surplus..];
    let known: Vec<Vec<Value>> = stored
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let last = ended.len().saturating_sub(1);
    let lines = ended.iter().enumerate().map(|(index, one)| {
        let (timeline, end) = (json!(one.timeline), json!(one.end));
        let same = |line: &&Vec<Value>| line.starts_with(&[timeline.clone(), end.clone()]);
        if let Some(line) = known.iter().find(same) {
            return line.clone();
        }
        let mut line = vec![timeline, end, json!(one.reason)];
        if index == last {
            line.extend([json!(at), json!(leader)]);
        }
        line
    });
    json!(lines.collect::<Vec<_>>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: Option<&str>, expected: &str) {
        let ended = [(1, 100, "no recovery target specified"), (2, 200, "asked")];
        let ended = ended.map(|(timeline, end, reason)| EndedTimeline {
            timeline: Timeline(timeline),
            end: Lsn(end),
            reason: reason.to_owned(),
        });
        let leader = NodeName::new("n2").expect("a plain name");
        assert_eq!(with_history(stored, &ended, &leader, "now", 0), expected);
        assert_eq!(with_history(stored, &ended, &leader, "now", 7), expected);
        let lines: Vec<Value> = serde_json::from_str(expected).expect("a list");
        let newest = json!([lines[1]]).to_string();
        assert_eq!(with_history(stored, &ended, &leader, "now", 1), newest);
    }

    /// Patroni: Failover | `/history`, `max_timelines_history` | work
    #[test]
    fn what_is_known_stays_and_the_last_line_is_ours() {
        check(
            Some(r#"[[1,100,"why","then","n1"]]"#),
            r#"[[1,100,"why","then","n1"],[2,200,"asked","now","n2"]]"#,
        );
        check(
            Some(r#"[[1,100,"why","then","n1"],[2,200,"asked","before","n2"]]"#),
            r#"[[1,100,"why","then","n1"],[2,200,"asked","before","n2"]]"#,
        );
    }

    #[test]
    fn what_nobody_wrote_down_or_is_of_another_history_is_told_by_the_file() {
        let bare = r#"[[1,100,"no recovery target specified"],[2,200,"asked","now","n2"]]"#;
        check(None, bare);
        check(Some("{"), bare);
        check(
            Some(r#"[[1,99,"why","then","n1"],[3,300,"x","y","z"]]"#),
            bare,
        );
    }
}
