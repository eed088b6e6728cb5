//! Who is there when nobody leads: a member asks the others itself, and says who is missing.

use super::member::Member;
use super::options::Start;
use super::store::{MemberInfo, Role};
use crate::peer::message::{Request, Response};
use std::time::Duration;

/// All that it knows of, or is to found the store with, and whether they answer. Ends within the limit of one request.
pub(super) async fn look(member: &Member, known: Vec<MemberInfo>) -> Vec<MemberInfo> {
    let all = match known.is_empty() {
        true => wanted(&member.options.start),
        false => known,
    };
    let asking = all.into_iter().map(async |mut info| {
        let is_there = info.name == member.options.name.as_str() || answers(member, &info).await;
        info.last_contact = Some(if is_there {
            Duration::ZERO
        } else {
            Duration::MAX
        });
        info
    });
    futures_util::future::join_all(asking).await
}

/// Of somebody else at that address it is not the answer.
async fn answers(member: &Member, info: &MemberInfo) -> bool {
    let limit = member.options.timing.request_timeout;
    let asked = member
        .pool
        .call_within(limit, &info.address, None, Request::Status);
    match asked.await {
        Ok(Response::Status(status)) => info.name == status.name || info.name == info.address,
        Ok(_) | Err(_) => false,
    }
}

/// Before there is a store. Who joins knows addresses only.
fn wanted(start: &Start) -> Vec<MemberInfo> {
    let info = |name: &str, address: &str| MemberInfo {
        name: name.to_owned(),
        address: address.to_owned(),
        id: 0,
        role: Role::Voter,
        leader: false,
        last_contact: None,
    };
    match start {
        Start::Found => Vec::new(),
        Start::Members(list) => list
            .iter()
            .map(|(name, address)| info(name.as_str(), address))
            .collect(),
        Start::Join(addresses) => addresses
            .iter()
            .map(|address| info(address, address))
            .collect(),
    }
}
