//! An action in the words of the decision (its job) and of the log (its name).

use ha::{Action, Job};

/// The job that an action is, as the decision sees it.
pub(crate) fn job(action: &Action) -> Job {
    match action {
        Action::Bootstrap | Action::Adopt => Job::Bootstrap,
        Action::Park | Action::Rejoin { .. } => Job::Park,
        Action::Detach => Job::Detach,
        Action::Promote { .. } => Job::Promote,
        Action::Apply { .. } => Job::Apply,
        Action::Follow { .. }
        | Action::Feed { .. }
        | Action::Compare { .. }
        | Action::FollowRemote { .. } => Job::Follow,
        Action::Rewind { .. } => Job::Rewind,
        Action::Clone { .. } => Job::Clone,
        Action::Drain => Job::Drain,
        Action::Stop => Job::Stop,
        Action::Found
        | Action::Reattach { .. }
        | Action::Promise(_)
        | Action::Withdraw { .. }
        | Action::Claim(_)
        | Action::Publish { .. }
        | Action::Record { .. }
        | Action::Open
        | Action::Fence
        | Action::Release { .. }
        | Action::ClearSwitchover { .. }
        | Action::Recognize { .. }
        | Action::Leave => Job::Other,
    }
}

/// The action's name for the log.
pub(crate) fn name(action: &Action) -> &'static str {
    match action {
        Action::Found => "found",
        Action::Bootstrap => "bootstrap",
        Action::Adopt => "adopt",
        Action::Reattach { .. } => "reattach",
        Action::Park => "park",
        Action::Detach => "detach",
        Action::Promise(_) => "promise",
        Action::Withdraw { .. } => "withdraw",
        Action::Claim(_) => "claim",
        Action::Promote { .. } => "promote",
        Action::Publish { .. } => "publish",
        Action::Record { .. } => "record",
        Action::Apply { .. } => "apply",
        Action::Open => "open",
        Action::Follow { .. } => "follow",
        Action::Rejoin { .. } => "rejoin",
        Action::Feed { .. } => "feed",
        Action::Rewind { .. } => "rewind",
        Action::Clone { .. } => "clone",
        Action::Recognize { .. } => "recognize",
        Action::Compare { .. } => "compare",
        Action::FollowRemote { .. } => "follow remote",
        Action::Drain => "drain",
        Action::Stop => "stop",
        Action::Fence => "fence",
        Action::Release { .. } => "release",
        Action::ClearSwitchover { .. } => "clear switchover",
        Action::Leave => "leave",
    }
}
