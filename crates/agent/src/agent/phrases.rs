//! What Patroni's log says, in its words, for programs that look for them there.
//!
//! These lines have a target of their own, [`PHRASES`]: a log that is not to look like Patroni's leaves them out.
//!
//! It adds nothing that our own lines do not say.

use super::Agent;
use ha::{Action, ClusterView, Decision, Instant, NodeView, Postgres};
use std::time::Duration;

/// The target of these lines.
pub const PHRASES: &str = "patroni";

/// A state that stays is said again this often, as in Patroni with its usual `loop_wait`.
const AGAIN: Duration = Duration::from_secs(10);

/// What was said last, and when.
#[derive(Debug, Default)]
pub(super) struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether it is to be said now.
    fn is_news(&mut self, text: &str, at: Instant) -> bool {
        let stale = |(last, when): &(String, Instant)| last != text || at.since(*when) >= AGAIN;
        let news = self.0.as_ref().is_none_or(stale);
        if news {
            self.0 = Some((text.to_owned(), at));
        }
        news
    }
}

impl Agent {
    pub(super) fn phrase(
        &mut self,
        decision: &Decision,
        view: &ClusterView,
        me: &NodeView,
        at: Instant,
    ) {
        if let Some(text) = phrase(decision, view, me)
            && self.phrased.is_news(&text, at)
        {
            tracing::info!(target: PHRASES, "{text}");
        }
    }
}

/// What Patroni would say; `None` where our own line is all there is.
fn phrase(decision: &Decision, view: &ClusterView, me: &NodeView) -> Option<String> {
    let name = &me.name;
    if let Some(action) = decision.actions.first() {
        return doing(action, &decision.reason);
    }
    let ClusterView::Known(cluster) = view else {
        return None;
    };
    let pause = if cluster.settings.paused {
        "PAUSE: "
    } else {
        ""
    };
    match (&me.postgres, &cluster.leader) {
        (Postgres::Primary(primary), Some(leader))
            if leader == name && primary.open && me.lease.is_some() =>
        {
            Some(format!(
                "{pause}no action. I am ({name}), the leader with the lock"
            ))
        }
        (Postgres::Standby(standby), Some(leader))
            if leader == name && standby.remote.is_some() && me.lease.is_some() =>
        {
            Some(format!(
                "{pause}no action. I am ({name}), the standby leader with the lock"
            ))
        }
        (Postgres::Standby(standby), Some(leader)) if leader != name && standby.streaming => {
            Some(format!(
                "{pause}no action. I am ({name}), a secondary, and following a leader ({leader})"
            ))
        }
        _ => None,
    }
}

fn doing(action: &Action, reason: &str) -> Option<String> {
    Some(match action {
        Action::Bootstrap => "trying to bootstrap a new cluster".to_owned(),
        Action::Clone { leader, .. } => format!("trying to bootstrap from leader '{leader}'"),
        Action::Rewind { leader, .. } => format!("running pg_rewind from {leader}"),
        Action::FollowRemote { .. } => {
            "promoted self to a standby leader by acquiring session lock".to_owned()
        }
        Action::Promote { .. } => "promoted self to leader by acquiring session lock".to_owned(),
        Action::Fence => format!("demoting self because {reason}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_said_when_it_is_new_and_every_ten_seconds() {
        let at = |seconds| Instant::default().plus(Duration::from_secs(seconds));
        let mut said = Said::default();
        assert!(said.is_news("a", at(1)));
        assert!(!said.is_news("a", at(2)));
        assert!(said.is_news("b", at(3)));
        assert!(!said.is_news("b", at(12)));
        assert!(said.is_news("b", at(13)));
    }

    #[test]
    fn an_order_to_promote_is_said_in_patronis_words() {
        let promote = Action::Promote {
            epoch: ha::Epoch(2),
            setting: None,
        };
        assert_eq!(
            doing(&promote, "all WAL is replayed").as_deref(),
            Some("promoted self to leader by acquiring session lock")
        );
        assert_eq!(doing(&Action::Detach, "the leader is gone"), None);
    }
}
