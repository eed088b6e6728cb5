//! How many clients and servers the process has file descriptors for.
//!
//! **Invariant:** all that clients and servers may take together leaves the process its own.
//!
//! It does not know who opens what.

use ::proxy::Limits;
use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The store's connections, listeners, files that are read again.
    Proxy,
    /// The store's and its files, peers, the REST API, Postgres.
    Node,
}

impl Own {
    fn descriptors(self) -> u64 {
        match self {
            Self::Proxy => 64,
            Self::Node => 1024,
        }
    }
}

/// Raises the soft limit, which is for programs that have not heard of more than 1024, and lowers the proxy's own limits
/// to what there is.
pub(crate) fn fit(limits: &mut Limits, own: Own) -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, raised).context("can't raise the limit of file descriptors")?;
    let wanted = limits.clients_max;
    share(limits, hard.unwrap_or(u64::MAX), own);
    if limits.clients_max < wanted {
        tracing::info!(
            max_client_conn = wanted,
            clients = limits.clients_max,
            "the process has file descriptors for fewer clients: LimitNOFILE, or ulimit -n, says how many"
        );
    }
    Ok(())
}

/// Of eight descriptors five are for clients, one for somebody who logs in, two for a server, which takes two.
fn share(limits: &mut Limits, all: u64, own: Own) {
    let own = own.descriptors();
    // Where there is little, there is little for anybody.
    let others = if all > 2 * own { all - own } else { all / 2 };
    let eighths = |count: u64| usize::try_from(others / 8 * count).unwrap_or(usize::MAX);
    limits.clients_max = limits.clients_max.min(eighths(5));
    limits.logins_max = limits.logins_max.min(eighths(1));
    limits.address_logins_max = limits.address_logins_max.min(eighths(1));
    limits.servers_max = limits.servers_max.min(eighths(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_servers_leave_the_process_its_own() {
        for own in [Own::Proxy, Own::Node] {
            for all in [0, 7, 100, 900, 1024, 4096, 20_000, 524_288, u64::MAX] {
                let mut limits = Limits {
                    clients_max: usize::MAX,
                    logins_max: usize::MAX,
                    address_logins_max: usize::MAX,
                    servers_max: usize::MAX,
                    ..Limits::default()
                };
                share(&mut limits, all, own);
                let taken = [
                    limits.clients_max,
                    limits.logins_max,
                    limits.servers_max,
                    limits.servers_max,
                ];
                let taken: u128 = taken.iter().map(|one| *one as u128).sum();
                let kept = u128::from(all) - taken;
                assert!(
                    kept >= u128::from(own.descriptors().min(all / 2)),
                    "{all}: {kept}"
                );
            }
        }
    }

    #[test]
    fn what_a_file_says_is_enough_where_there_is_plenty() {
        let mut limits = Limits::default();
        share(&mut limits, 524_288, Own::Node);
        assert_eq!(limits.clients_max, Limits::default().clients_max);
    }
}
