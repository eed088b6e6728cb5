//! Reading the agents' logs as a person would who trusts nothing: what was not announced is a find.

/// Parts of the WARN and ERROR lines that a story expects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announced(pub &'static [&'static str]);

/// What begins every password and secret of the lab.
const PLANTED: &str = "planted-";

/// Everything in a node's log that should not be there.
pub(crate) fn finds(node: &str, log: &str, announced: &[&str]) -> Vec<String> {
    log.lines()
        .filter_map(|line| {
            let why = complaint(line, announced)?;
            Some(format!("{node}: {why}: {line}"))
        })
        .collect()
}

fn complaint(line: &str, announced: &[&str]) -> Option<&'static str> {
    if line.contains("panicked at") {
        return Some("a panic");
    }
    if line.contains(PLANTED) {
        return Some("a secret");
    }
    let loud = line
        .split_whitespace()
        .take(4)
        .any(|word| matches!(word, "WARN" | "ERROR"));
    let known = announced.iter().any(|part| line.contains(part));
    (loud && !known).then_some("not announced")
}

#[cfg(test)]
mod tests {
    use super::finds;

    #[test]
    fn only_what_was_announced_may_be_loud() {
        let log = "12:00:00 7 INFO all is well\n12:00:01 7 WARN the leader is silent\n12:00:02 7 ERROR disk on fire\n";
        assert_eq!(
            finds("n1", log, &["leader is silent"]),
            ["n1: not announced: 12:00:02 7 ERROR disk on fire"]
        );
        assert_eq!(
            finds("n1", "thread 'x' panicked at y", &["panicked"]).len(),
            1
        );
        assert_eq!(
            finds("n1", "12:00:00 7 INFO password=planted-x", &[]).len(),
            1
        );
    }
}
