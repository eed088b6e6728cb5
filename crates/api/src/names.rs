//! Host names that stand for addresses, in the allowlist and in members' records.
//!
//! **Invariant:** a name that can't be resolved now stands for no address, whatever it stood for before.
//!
//! Names are looked up when somebody wants to change something, and again after a while; reads never wait for them.

use crate::clock::now;
use ha::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long an answer counts.
const KEPT: Duration = Duration::from_secs(30);
/// How long one that failed does: the next caller shall not wait for it as well.
const FAILED_FOR: Duration = Duration::from_secs(3);
/// How long a look-up may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Names of members that have left are let go of beyond this.
const NAMES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Names {
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Names {
    /// Whether one of the names stands for this address. Others who ask meanwhile wait for the same answer.
    pub(crate) async fn stand_for(&self, names: &[String], address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut known = self.known.lock().await;
        for name in names {
            let fresh = known.get(name).filter(|known| now() < known.until);
            let found = match fresh {
                Some(known) => known.addresses.contains(&address),
                None => {
                    if known.len() >= NAMES_MAX {
                        known.clear();
                    }
                    let learned = look_up(name).await;
                    let found = learned.addresses.contains(&address);
                    known.insert(name.clone(), learned);
                    found
                }
            };
            if found {
                return true;
            }
        }
        false
    }
}

async fn look_up(name: &str) -> Known {
    let looking = tokio::net::lookup_host((name, 0));
    let (addresses, kept): (Vec<IpAddr>, _) = match tokio::time::timeout(LIMIT, looking).await {
        Ok(Ok(found)) => (found.map(|it| it.ip().to_canonical()).collect(), KEPT),
        Ok(Err(error)) => {
            tracing::warn!(name, %error, "a host name of the allowlist stands for no address");
            (Vec::new(), FAILED_FOR)
        }
        Err(_) => {
            tracing::warn!(
                name,
                "a host name of the allowlist could not be looked up in time"
            );
            (Vec::new(), FAILED_FOR)
        }
    };
    Known {
        addresses,
        until: now().plus(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_stands_for_its_addresses_until_it_can_not_be_resolved() {
        let names = Names::default();
        let here: IpAddr = "127.0.0.1".parse().expect("an address");
        let there: IpAddr = "192.0.2.1".parse().expect("an address");
        let asked = ["no-such-host.invalid".to_owned(), "localhost".to_owned()];
        assert!(names.stand_for(&asked, here).await);
        assert!(!names.stand_for(&asked, there).await);
        assert!(!names.stand_for(&asked[..1], here).await);
        // What was known of a name is worth nothing once its time is over.
        let known = |until| Known {
            addresses: vec![here],
            until,
        };
        let name = &asked[..1];
        let mut all = names.known.lock().await;
        all.insert(name[0].clone(), known(now().plus(KEPT)));
        drop(all);
        assert!(names.stand_for(name, here).await, "still counts");
        let mut all = names.known.lock().await;
        all.insert(name[0].clone(), known(now()));
        drop(all);
        assert!(!names.stand_for(name, here).await, "closed, not left open");
    }
}
