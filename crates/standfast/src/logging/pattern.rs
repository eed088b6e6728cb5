//! The form of a plain line, as Patroni's `log.format` has it: `%(asctime)s %(levelname)s: %(message)s`.

use std::str::FromStr;

/// A part of the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// Filled up with spaces to so many characters, to the left or the right of it.
    Value(Value, usize, bool),
}

/// What stands in for a name of Python's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Time,
    Level,
    Message,
    /// The part that speaks.
    Name,
    Process,
    File,
    Line,
}

/// The whole form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Vec<Piece>);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                pieces.push(Piece::Text("%".to_owned()));
                rest = after;
                continue;
            }
            let inner = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
            let (name, after) =
                inner.ok_or_else(|| format!("{text:?} has a % that names nothing"))?;
            let end = after
                .find(|c: char| c.is_ascii_alphabetic())
                .ok_or_else(|| format!("%({name}) has no s or d behind it"))?;
            let width = &after[..end];
            let left = width.starts_with('-');
            let width = width.trim_start_matches('-');
            let width = match width {
                "" => 0,
                digits => digits
                    .parse()
                    .ok()
                    .filter(|width| *width <= 200)
                    .ok_or_else(|| format!("{width:?} is no width"))?,
            };
            pieces.push(Piece::Value(value(name)?, width, left));
            rest = &after[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let says = |piece: &Piece| matches!(piece, Piece::Value(Value::Message, _, _));
        match pieces.iter().any(says) {
            true => Ok(Self(pieces)),
            false => Err("a line without %(message)s says nothing".to_owned()),
        }
    }
}

fn value(name: &str) -> Result<Value, String> {
    Ok(match name {
        "asctime" => Value::Time,
        "levelname" => Value::Level,
        "message" => Value::Message,
        "name" | "module" => Value::Name,
        "process" => Value::Process,
        "filename" | "pathname" => Value::File,
        "lineno" => Value::Line,
        other => return Err(format!("there is no %({other})s here")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_pythons_is_taken_apart() {
        let pattern: Pattern = "%(asctime)s [%(levelname)-8s] 100%% %(message)s\t"
            .parse()
            .unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let expected = [
            Piece::Value(Value::Time, 0, false),
            text(" ["),
            Piece::Value(Value::Level, 8, true),
            text("] 100"),
            text("%"),
            text(" "),
            Piece::Value(Value::Message, 0, false),
            text("\t"),
        ];
        assert_eq!(pattern.0, expected);
    }

    #[test]
    fn what_is_no_form_is_said() {
        for (text, why) in [
            ("%(levelname)s", "says nothing"),
            ("%(message)s %(taskName)s", "there is no %(taskName)s"),
            ("%(message)s 5 %", "names nothing"),
            ("%(message)", "no s or d"),
            ("%(message)999s", "no width"),
        ] {
            let said = text.parse::<Pattern>().unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
