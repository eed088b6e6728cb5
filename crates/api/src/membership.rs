//! The embedded store's members: asked for in the background, shown from memory.
//!
//! **Invariant:** no answer waits for the store longer than [`NEWS_WITHIN`], and none says who leads or who answers by
//! a list older than [`STALE_AFTER`]: nobody may have asked since before the failure that is looked into now.

use crate::options::{Membership, StoreMember};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A list older than this is asked for again.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long an answer may wait for a new list, where there is none or only an old one.
const NEWS_WITHIN: Duration = Duration::from_millis(250);
/// When an unanswered question counts as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A list older than this still says who is a member, and no more.
const STALE_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Members {
    source: Option<Arc<dyn Membership>>,
    known: Arc<Mutex<Known>>,
    /// Woken when a question has ended.
    told: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Known {
    members: Option<Vec<StoreMember>>,
    /// When the last question ended.
    asked: Option<Instant>,
    asking: bool,
}

impl Known {
    fn is_older_than(&self, age: Duration) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= age)
    }
}

impl Members {
    pub(crate) fn new(source: Option<Arc<dyn Membership>>) -> Self {
        Self {
            source,
            known: Arc::default(),
            told: Arc::default(),
        }
    }

    /// Whether the store is the embedded one.
    pub(crate) fn source(&self) -> Option<&dyn Membership> {
        self.source.as_deref()
    }

    /// The last known list; a new one is asked for if this is old.
    pub(crate) fn known(&self) -> Vec<StoreMember> {
        self.refresh();
        lock(&self.known).members.clone().unwrap_or_default()
    }

    /// A list that is new, after a short wait for it if it must be.
    pub(crate) async fn news(&self) -> Vec<StoreMember> {
        // Before the question is asked: its end must not be missed.
        let told = self.told.notified();
        self.refresh();
        if lock(&self.known).asking {
            let _ = tokio::time::timeout(NEWS_WITHIN, told).await;
        }
        let known = lock(&self.known);
        let mut members = known.members.clone().unwrap_or_default();
        if known.is_older_than(STALE_AFTER) {
            forget_who_answers(&mut members);
        }
        members
    }

    /// Asks, unless the list is new enough or asked for already.
    fn refresh(&self) {
        let Some(source) = self.source.clone() else {
            return;
        };
        {
            let mut known = lock(&self.known);
            if known.asking || !known.is_older_than(FRESH_FOR) {
                return;
            }
            known.asking = true;
        }
        let (known, told) = (Arc::clone(&self.known), Arc::clone(&self.told));
        tokio::spawn(async move {
            let answer = tokio::time::timeout(ANSWER_WITHIN, source.members()).await;
            {
                let mut known = lock(&known);
                known.asking = false;
                known.asked = Some(Instant::now());
                match answer {
                    Ok(Ok(members)) => known.members = Some(members),
                    Ok(Err(_)) | Err(_) => {
                        forget_who_answers(known.members.as_deref_mut().unwrap_or_default());
                    }
                }
            }
            told.notify_waiters();
        });
    }
}

/// Who leads and who is reachable is not known then; who is a member still is.
fn forget_who_answers(members: &mut [StoreMember]) {
    for member in members {
        member.leader = false;
        member.reachable = None;
    }
}

/// A panic elsewhere leaves this whole: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use tokio::sync::watch;

    /// A store of two whose leader is what the test says, and which answers only while there is one.
    #[derive(Debug)]
    struct Led(watch::Receiver<Option<&'static str>>);

    #[async_trait]
    impl Membership for Led {
        async fn members(&self) -> Result<Vec<StoreMember>, String> {
            let mut leader = self.0.clone();
            let leader = leader.wait_for(Option::is_some).await;
            let leader = leader.map_err(|gone| gone.to_string())?.unwrap_or_default();
            let member = |name: &str| StoreMember {
                name: name.to_owned(),
                address: format!("{name}:7000"),
                voter: true,
                leader: name == leader,
                reachable: Some(name == leader),
            };
            Ok(vec![member("a"), member("b")])
        }

        async fn remove(&self, _: &str) -> Result<(), String> {
            Ok(())
        }
    }

    fn text(members: &[StoreMember]) -> String {
        let word = |member: &StoreMember| match (member.leader, member.reachable) {
            (true, _) => format!("{} leads", member.name),
            (false, Some(false)) => format!("{} !", member.name),
            (false, _) => member.name.clone(),
        };
        members.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_after_an_hour_is_told_what_is_and_not_what_was() {
        let (leader, led) = watch::channel(Some("a"));
        let members = Members::new(Some(Arc::new(Led(led))));
        assert_eq!(text(&members.news().await), "a leads, b !");
        leader.send(Some("b")).unwrap();
        assert_eq!(text(&members.news().await), "a leads, b !", "it is new");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(text(&members.news().await), "a !, b leads");
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_old_list_says_of_who_answers_is_not_said() {
        let (leader, led) = watch::channel(Some("a"));
        let members = Members::new(Some(Arc::new(Led(led))));
        assert_eq!(text(&members.news().await), "a leads, b !");
        leader.send(None).unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let before = Instant::now();
        assert_eq!(text(&members.news().await), "a, b");
        assert_eq!(before.elapsed(), NEWS_WITHIN, "no longer is waited");
        // Another one joins in waiting for the question that is under way.
        assert_eq!(text(&members.news().await), "a, b");
        leader.send(Some("b")).unwrap();
        assert_eq!(text(&members.news().await), "a !, b leads");
    }
}
