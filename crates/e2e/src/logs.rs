//! Reading the agents' logs as a person would who trusts nothing: what was not announced is a find.

/// Parts of the WARN and ERROR lines that a story expects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announced(pub &'static [&'static str]);

impl Announced {
    /// What a deposed primary may say: that it is, and what it threw away.
    pub const FAILOVER: Self = Self(&[
        "the store no longer has this node as leader",
        "the lease has ended",
        "WAL that the cluster does not have was discarded",
    ]);

    /// The same where the agent was stopped and went on later.
    pub const STOPPED: Self = Self(&[
        "the store no longer has this node as leader",
        "the lease has ended",
        "WAL that the cluster does not have was discarded",
        "the agent's loop hangs: the lease is not renewed",
    ]);

    /// The same where a leader has lost the store, and the members hold still for it.
    pub const FAILSAFE: Self = Self(&[
        "the store is lost, and the members hold still: this leader stays",
        "the leader has lost the store: holding still for it",
        "the store is back: the leadership is taken again",
        "too few members still hold still",
        "the store no longer has this node as leader",
        "the lease has ended",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
        "cannot stream from",
    ]);

    /// The same where everything was killed and started again.
    pub const POWER: Self = Self(&[
        "the store no longer has this node as leader",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
        // A leader that was fenced or restarted lets nobody stream before it is in office again.
        "cannot stream from",
        "the lease has ended",
    ]);

    /// The same where settings are stored that mean nothing here.
    pub const IN_VAIN: Self = Self(&[
        "the store no longer has this node as leader",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
        "cannot stream from",
        "the lease has ended",
        "settings that have no effect were stored",
    ]);

    /// The same as the first where the new leader may go as well.
    pub const AGAIN: Self = Self(&[
        "the store no longer has this node as leader",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
        "cannot stream from",
        "the lease has ended",
        // The leader that was copied or rewound to has gone meanwhile.
        "the action failed and is decided anew",
        // That leader was frozen.
        "the agent's loop hangs: the lease is not renewed",
    ]);

    /// The same where what is tried may fail, and is tried again.
    pub const TROUBLE: Self = Self(&[
        "the store no longer has this node as leader",
        "the lease has ended",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
        "the action failed and is decided anew",
        "processes can't be killed: the lease is left to end",
    ]);

    /// The same where an agent has to stop what can't be stopped.
    pub const STOPPED_IN_TROUBLE: Self = Self(&[
        "the store no longer has this node as leader",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
        "the storage fails: Postgres is not stopped in order",
        "Postgres did not stop in order",
        "processes can't be killed: the lease is left to end",
        "the agent's loop hangs: the lease is not renewed",
        // Another leads meanwhile.
        "the leadership was not released",
        "cannot stream from",
    ]);
}

/// What the Raft library says whenever a peer is silent for a moment, and what a guard is for.
const EVERYWHERE: [&str; 7] = [
    "RPCError err=",
    "timeout error=timeout after",
    "while requesting vote",
    "timeout while confirming leadership",
    "append-entries timeout",
    // Ours, and the very thing that most stories are about.
    "the guard has killed Postgres",
    // The same of the store.
    "the store is silent: the proxy goes on with what it knew last",
];

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
    let known = announced
        .iter()
        .chain(&EVERYWHERE)
        .any(|part| line.contains(part));
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
