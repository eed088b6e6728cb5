//! Changing the cluster's configuration.
//!
//! **Invariant:** what can't be understood as settings is never stored.

use super::{TRIES, commit, overtaken};
use crate::error::Refusal;
use crate::event::to_text;
use crate::v1::Code;
use serde_json::{Map, Value};
use store::layout::{ConfigRecord, Keys};
use store::{Store, Txn};

/// Merges `change` into the stored configuration: `null` removes a key, objects are merged within.
pub(crate) async fn merge(
    store: &dyn Store,
    keys: &Keys,
    change: &Map<String, Value>,
) -> Result<ConfigRecord, Refusal> {
    update(store, keys, |current| {
        let mut next = current?.0;
        merge_into(&mut next, change);
        Ok(ConfigRecord(next))
    })
    .await
}

/// Puts `next` in the place of the stored configuration.
pub(crate) async fn replace(
    store: &dyn Store,
    keys: &Keys,
    next: &Map<String, Value>,
) -> Result<ConfigRecord, Refusal> {
    update(store, keys, |_| Ok(ConfigRecord(next.clone()))).await
}

async fn update(
    store: &dyn Store,
    keys: &Keys,
    change: impl Fn(Result<ConfigRecord, Refusal>) -> Result<ConfigRecord, Refusal>,
) -> Result<ConfigRecord, Refusal> {
    let key = keys.config();
    for _ in 0..TRIES {
        let snapshot = store.read(&key).await?;
        let current: Option<ConfigRecord> = match snapshot.value(&key) {
            None => Some(ConfigRecord::default()),
            Some(text) => serde_json::from_str(text).ok(),
        };
        let next = change(current.clone().ok_or_else(unreadable))?;
        let understood = next.settings().map(drop);
        let understood = understood.and_then(|()| next.postgres().map(drop));
        understood.map_err(|bad| {
            Refusal::new(Code::Invalid, bad.to_string()).hint("nothing was changed")
        })?;
        if Some(&next) == current.as_ref() && snapshot.value(&key).is_some() {
            return Ok(next);
        }
        let txn = Txn::new()
            .when(snapshot.unchanged(&key))
            .put(key.clone(), to_text(&next));
        if commit(store, txn).await? {
            return Ok(next);
        }
    }
    Err(overtaken())
}

/// Merging into nothing would take away what nobody could read, such as that this is a standby cluster.
fn unreadable() -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "the configuration in the store can't be read, so nothing can be merged into it",
    )
    .hint("PUT /config, or edit-config --replace, puts another in its place")
}

fn merge_into(target: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (key, value) in change {
        match (target.get_mut(key), value) {
            (_, Value::Null) => {
                target.remove(key);
            }
            (Some(Value::Object(inner)), Value::Object(change)) => merge_into(inner, change),
            (_, Value::Object(change)) => {
                let mut inner = Map::new();
                merge_into(&mut inner, change);
                target.insert(key.clone(), Value::Object(inner));
            }
            (_, other) => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(target: Value, change: Value, expected: Value) {
        let (Value::Object(mut target), Value::Object(change)) = (target, change) else {
            panic!("objects");
        };
        merge_into(&mut target, &change);
        assert_eq!(Value::Object(target), expected);
    }

    #[test]
    fn a_merge_is_the_one_of_rfc_7396() {
        check(json!({"a": 1}), json!({"a": null, "b": 2}), json!({"b": 2}));
        check(
            json!({"postgresql": {"parameters": {"x": 1, "y": 2}}}),
            json!({"postgresql": {"parameters": {"x": null, "z": 3}}}),
            json!({"postgresql": {"parameters": {"y": 2, "z": 3}}}),
        );
        check(
            json!({"a": [1]}),
            json!({"a": {"b": null}}),
            json!({"a": {}}),
        );
        check(json!({"a": {"b": 1}}), json!({"a": 2}), json!({"a": 2}));
    }
}
