//! Our values and etcd's.
//!
//! **Invariant:** a transaction is linearizable whether it writes or not: etcd answers one without operations from
//! whatever the member at hand has, so it is given an operation that it must not answer so.

use super::proto::{
    Compare, Compared, DeleteRangeRequest, KeyValue, Operation, PutRequest, RangeRequest,
    RangeResponse, Relation, RequestOp, Target, TxnRequest,
};
use crate::kv::{Entry, Guard, LeaseId, Op, Revision, Snapshot, Txn};
use std::sync::Arc;

/// Everything that begins with `prefix`.
pub(super) fn range(prefix: &str) -> RangeRequest {
    let (key, range_end) = bounds(prefix);
    RangeRequest {
        key,
        range_end,
        count_only: false,
    }
}

/// The first key and the one behind the last.
pub(super) fn bounds(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (prefix.as_bytes().to_vec(), end);
        }
    }
    // A zero byte as the end means: to the end of all keys.
    (vec![0], vec![0])
}

pub(super) fn snapshot(answer: RangeResponse) -> Snapshot {
    let revision = answer.header.map_or(0, |header| header.revision);
    Snapshot {
        revision: unsigned(revision),
        entries: answer.kvs.into_iter().map(entry).collect(),
    }
}

/// Bytes that are no text become a text that no record is.
pub(super) fn entry(found: KeyValue) -> (String, Arc<Entry>) {
    let entry = Entry {
        value: text(found.value),
        created: unsigned(found.create_revision),
        modified: unsigned(found.mod_revision),
        lease: (found.lease != 0).then_some(LeaseId(found.lease)),
    };
    (text(found.key), Arc::new(entry))
}

pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned())
}

/// `readable`: a key that may surely be read.
pub(super) fn transaction(txn: &Txn, readable: &str) -> TxnRequest {
    let mut success: Vec<_> = txn.ops.iter().map(operation).collect();
    let mut failure = vec![];
    if success.is_empty() {
        let key = txn.guards.first().map_or(readable, guarded);
        success.push(look(key));
        failure.push(look(key));
    }
    TxnRequest {
        compare: txn.guards.iter().map(compare).collect(),
        success,
        failure,
    }
}

/// A read of no consequence, which is linearizable and so makes the whole transaction be.
fn look(key: &str) -> RequestOp {
    let request = RangeRequest {
        key: key.as_bytes().to_vec(),
        range_end: vec![],
        count_only: true,
    };
    RequestOp {
        request: Some(Operation::Range(request)),
    }
}

fn guarded(guard: &Guard) -> &str {
    match guard {
        Guard::Absent { key }
        | Guard::Present { key }
        | Guard::Unchanged { key, .. }
        | Guard::Equals { key, .. } => key,
    }
}

fn compare(guard: &Guard) -> Compare {
    let (result, target, with) = match guard {
        // A key that is not there was created at revision 0.
        Guard::Absent { .. } => (Relation::Equal, Target::Create, Compared::CreateRevision(0)),
        Guard::Present { .. } => (
            Relation::Greater,
            Target::Create,
            Compared::CreateRevision(0),
        ),
        Guard::Unchanged { modified, .. } => (
            Relation::Equal,
            Target::Mod,
            Compared::ModRevision(signed(*modified)),
        ),
        Guard::Equals { value, .. } => (
            Relation::Equal,
            Target::Value,
            Compared::Value(value.as_bytes().to_vec()),
        ),
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: guarded(guard).as_bytes().to_vec(),
        with: Some(with),
    }
}

fn operation(op: &Op) -> RequestOp {
    let request = match op {
        Op::Put { key, value, lease } => Operation::Put(PutRequest {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            lease: lease.map_or(0, |lease| lease.0),
        }),
        Op::Delete { key } => Operation::Delete(DeleteRangeRequest {
            key: key.as_bytes().to_vec(),
        }),
    };
    RequestOp {
        request: Some(request),
    }
}

/// etcd's revisions are never negative.
pub(super) fn unsigned(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or(0)
}

pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(bounds("/a/"), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(bounds(""), (vec![0], vec![0]));
        // The last byte of a text is never 255; the one before the last counts all the same.
        assert_eq!(bounds("a\u{7f}"), (b"a\x7f".to_vec(), b"a\x80".to_vec()));
    }

    #[test]
    fn a_transaction_without_operations_is_no_stale_read() {
        let guard = Guard::Present { key: "/g".into() };
        let request = transaction(&Txn::new().when(guard), "/p/");
        assert_eq!(
            (request.success, request.failure),
            (vec![look("/g")], vec![look("/g")])
        );
        let request = transaction(&Txn::new(), "/p/");
        assert_eq!(
            (request.success, request.failure),
            (vec![look("/p/")], vec![look("/p/")])
        );
        let request = transaction(&Txn::new().delete("/d"), "/p/");
        assert_eq!((request.success.len(), request.failure.len()), (1, 0));
    }
}
