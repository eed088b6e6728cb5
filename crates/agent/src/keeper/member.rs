//! When the member key is written: at once for what is news, once a second for a position that moves.
//!
//! **Invariant:** when nothing moves, what is written is exact.

use super::Said;
use crate::clock::now;
use crate::tenure::Session;
use ha::Instant;
use std::time::Duration;
use store::LeaseId;
use store::layout::MemberRecord;

/// How often the member key is written for a position that moves.
const POSITION: Duration = Duration::from_secs(1);

/// The member key as it was written last.
#[derive(Debug)]
pub(super) struct Written {
    lease: LeaseId,
    record: MemberRecord,
    at: Instant,
}

pub(super) fn text(member: &MemberRecord) -> String {
    serde_json::to_string(member).unwrap_or_default()
}

pub(super) fn note(
    written: &mut Option<Written>,
    session: Session,
    fresh: Option<MemberRecord>,
    at: Instant,
) {
    if let Some(record) = fresh {
        let lease = session.lease;
        *written = Some(Written { lease, record, at });
    }
}

/// The member record, if it is to be written now.
pub(super) fn fresh_member(
    said: &Said,
    session: Session,
    written: Option<&Written>,
) -> Option<MemberRecord> {
    let member = said.member.as_ref()?;
    let due = due(member, Some(session.lease), written)?;
    due.is_zero().then(|| member.clone())
}

/// When the record is to be written; `None` if it is what was written. News go at once. A position that moves goes only
/// from time to time, or the store would work for every byte of WAL; when it rests, what is written is exact.
pub(super) fn due(
    member: &MemberRecord,
    lease: Option<LeaseId>,
    written: Option<&Written>,
) -> Option<Duration> {
    let Some(written) = written.filter(|it| Some(it.lease) == lease) else {
        return Some(Duration::ZERO);
    };
    if *member == written.record {
        return None;
    }
    let moved = MemberRecord {
        xlog_location: member.xlog_location,
        receive_lsn: member.receive_lsn,
        replay_lsn: member.replay_lsn,
        ..written.record.clone()
    };
    if *member != moved {
        return Some(Duration::ZERO);
    }
    Some(POSITION.saturating_sub(now().since(written.at)))
}
