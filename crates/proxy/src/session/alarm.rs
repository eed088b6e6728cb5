//! A deadline that is seldom reached.
//!
//! **Invariant:** the timer is never set for later than the deadline that is asked for.
//!
//! Setting a timer and taking it back costs more than the wait that it is for mostly lasts. So it stays
//! as it was set, and when it goes off too early it is set for the deadline of that moment.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// One session's. It has no timer before the first wait.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when the deadline is over.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_at_the_deadline_of_each_wait_and_not_before() {
        let mut alarm = Alarm::default();
        let soon = |after| Instant::now() + Duration::from_secs(after);
        for after in [30, 40, 10, 30] {
            let deadline = soon(after);
            // The wait is over long before, as most are.
            let is_early = poll_fn(|cx| Poll::Ready(alarm.poll(deadline, cx).is_pending())).await;
            assert!(is_early);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for after in [30, 5] {
            let deadline = soon(after);
            poll_fn(|cx| alarm.poll(deadline, cx)).await;
            let late = Instant::now() - deadline;
            assert!(late < Duration::from_millis(5), "{late:?}");
        }
    }
}
