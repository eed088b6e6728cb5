//! `slots` in `config`: replication slots that every node is to hold, for programs that are no members.

use super::ConfigRecord;
use serde_json::Value;
use std::collections::BTreeSet;

/// A slot's name may have so many characters.
const NAME_MAX: usize = 63;

/// What the key says, as far as it can be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermanentSlots {
    /// Physical slots, by their names.
    pub physical: BTreeSet<String>,
    /// Names of others, and why they are not made.
    pub unusable: Vec<(String, &'static str)>,
}

impl ConfigRecord {
    /// The permanent slots. What can't be made is said, and is no error: the others are.
    pub fn permanent_slots(&self) -> PermanentSlots {
        let mut slots = PermanentSlots::default();
        let Some(Value::Object(named)) = self.0.get("slots") else {
            return slots;
        };
        for (name, value) in named {
            match usable(name, value) {
                Ok(()) => drop(slots.physical.insert(name.clone())),
                Err(why) => slots.unusable.push((name.clone(), why)),
            }
        }
        slots
    }
}

fn usable(name: &str, value: &Value) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
        return Err("a slot's name is 1 to 63 of `a-z 0-9 _`");
    }
    match value {
        Value::Null => Ok(()),
        Value::Object(slot) => match slot.get("type") {
            None | Some(Value::Null)
                if slot.contains_key("plugin") || slot.contains_key("database") =>
            {
                Err("logical slots are not kept in this version")
            }
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(kind)) if kind == "physical" => Ok(()),
            Some(_) => Err("logical slots are not kept in this version"),
        },
        _ => Err("must be keys with values, such as type: physical"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Patroni: Configuration | permanent `slots`, logical | not there: said when they are configured
    #[test]
    fn physical_slots_are_kept_and_others_are_named() {
        let Value::Object(config) = json!({"slots": {
            "archive": {"type": "physical"}, "plain": null, "empty": {},
            "changes": {"type": "logical", "database": "a", "plugin": "pgoutput"},
            "Odd-Name": {"type": "physical"}, "number": 5,
        }}) else {
            panic!("an object")
        };
        let slots = ConfigRecord(config).permanent_slots();
        let physical: Vec<&str> = slots.physical.iter().map(String::as_str).collect();
        assert_eq!(physical, ["archive", "empty", "plain"]);
        let unusable: Vec<&str> = slots
            .unusable
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(unusable, ["Odd-Name", "changes", "number"]);
        assert_eq!(
            ConfigRecord::default().permanent_slots(),
            PermanentSlots::default()
        );
    }
}
