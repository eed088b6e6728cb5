//! `slots` in `config`: replication slots that every node is to hold, for programs that are no members.

use super::ConfigRecord;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A slot's name may have so many characters.
const NAME_MAX: usize = 63;

/// What the key says, as far as it can be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermanentSlots {
    /// Physical slots, by their names.
    pub physical: BTreeSet<String>,
    /// Logical slots: database and plugin.
    pub logical: BTreeMap<String, (String, String)>,
    /// Names of others, and why they are not made.
    pub unusable: Vec<(String, &'static str)>,
}

enum Kind {
    Physical,
    Logical(String, String),
}

impl ConfigRecord {
    /// The permanent slots. What can't be made is said, and is no error: the others are. Those for the other kind of
    /// cluster (`cluster_type`) are passed over.
    pub fn permanent_slots(&self) -> PermanentSlots {
        let mut slots = PermanentSlots::default();
        let Some(Value::Object(named)) = self.0.get("slots") else {
            return slots;
        };
        let follows = matches!(self.0.get("standby_cluster"), Some(Value::Object(_)));
        let here = if follows { "standby" } else { "primary" };
        for (name, value) in named {
            let meant = value.get("cluster_type").and_then(Value::as_str);
            if meant.is_some_and(|meant| meant != here) {
                continue;
            }
            match usable(name, value) {
                Ok(Kind::Physical) => drop(slots.physical.insert(name.clone())),
                Ok(Kind::Logical(database, plugin)) => {
                    slots.logical.insert(name.clone(), (database, plugin));
                }
                Err(why) => slots.unusable.push((name.clone(), why)),
            }
        }
        slots
    }
}

fn usable(name: &str, value: &Value) -> Result<Kind, &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
        return Err("a slot's name is 1 to 63 of `a-z 0-9 _`");
    }
    let slot = match value {
        Value::Null => return Ok(Kind::Physical),
        Value::Object(slot) => slot,
        _ => return Err("must be keys with values, such as type: physical"),
    };
    let text = |key: &str| slot.get(key).and_then(Value::as_str).map(str::to_owned);
    let logical = || match (text("database"), text("plugin")) {
        (Some(database), Some(plugin)) => Ok(Kind::Logical(database, plugin)),
        _ => Err("a logical slot needs its database and its plugin"),
    };
    match slot.get("cluster_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind == "primary" || kind == "standby" => {}
        Some(_) => return Err("cluster_type is primary or standby"),
    }
    match slot.get("type") {
        None | Some(Value::Null)
            if slot.contains_key("plugin") || slot.contains_key("database") =>
        {
            logical()
        }
        None | Some(Value::Null) => Ok(Kind::Physical),
        Some(Value::String(kind)) if kind == "physical" => Ok(Kind::Physical),
        Some(Value::String(kind)) if kind == "logical" => logical(),
        Some(_) => Err("type is physical or logical"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Patroni: Configuration | permanent `slots`: `cluster_type` | works
    #[test]
    fn slots_are_physical_or_logical_and_others_are_named() {
        let Value::Object(config) = json!({"slots": {
            "archive": {"type": "physical"}, "plain": null, "empty": {},
            "changes": {"type": "logical", "database": "a", "plugin": "pgoutput"},
            "half": {"type": "logical", "plugin": "pgoutput"},
            "Odd-Name": {"type": "physical"}, "number": 5,
            "there": {"cluster_type": "standby"}, "here": {"cluster_type": "primary"},
            "nowhere": {"cluster_type": "any"},
        }}) else {
            panic!("an object")
        };
        let slots = ConfigRecord(config).permanent_slots();
        let physical: Vec<&str> = slots.physical.iter().map(String::as_str).collect();
        assert_eq!(physical, ["archive", "empty", "here", "plain"]);
        let (database, plugin) = ("a".to_owned(), "pgoutput".to_owned());
        assert_eq!(
            slots.logical,
            [("changes".to_owned(), (database, plugin))].into()
        );
        let unusable: Vec<&str> = slots
            .unusable
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(unusable, ["Odd-Name", "half", "number"]);
        assert_eq!(
            ConfigRecord::default().permanent_slots(),
            PermanentSlots::default()
        );
    }
}
