//! Rows and columns on a terminal or for a program: the frames of patronictl.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value;

/// A column and to which side its cells lean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) right: bool,
}

impl Column {
    pub(super) fn left(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            right: false,
        }
    }

    pub(super) fn right(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            right: true,
        }
    }
}

/// A table with the title in its first line, as far as there is room.
pub(super) fn pretty(title: &str, columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let lines = cells.flat_map(|cell| cell.lines());
        let widest = lines.map(length).max().unwrap_or(0);
        widest.max(length(&columns[index].name))
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let rule = widths.iter().fold("+".to_owned(), |rule, width| {
        rule + &"-".repeat(width + 2) + "+"
    });
    let line = |cells: &[&str]| {
        let cells = cells.iter().zip(columns).zip(&widths);
        cells.fold("|".to_owned(), |line, ((cell, column), width)| {
            let space = " ".repeat(width.saturating_sub(length(cell)));
            if column.right {
                format!("{line} {space}{cell} |")
            } else {
                format!("{line} {cell}{space} |")
            }
        })
    };
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut lines = vec![titled(title, &rule), line(&names), rule.clone()];
    // Rows of more than one line are kept apart.
    let apart = rows.iter().flatten().any(|cell| cell.contains('\n'));
    for (index, row) in rows.iter().enumerate() {
        if apart && index > 0 {
            lines.push(rule.clone());
        }
        let height = row.iter().map(|cell| cell.lines().count()).max();
        for level in 0..height.unwrap_or(1).max(1) {
            let part = |cell: &'_ String| cell.lines().nth(level).unwrap_or("").to_owned();
            let parts: Vec<String> = row.iter().map(part).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            lines.push(line(&parts));
        }
    }
    lines.push(rule);
    lines.join("\n") + "\n"
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn titled(title: &str, rule: &str) -> String {
    let room = rule.len().saturating_sub(2);
    let title: String = title.chars().take(room).collect();
    let rest = rule.get(1 + length(&title)..).unwrap_or_default();
    format!("+{title}{rest}")
}

/// A line a row, the names first if there are any.
pub(super) fn separated(names: Option<&[String]>, rows: &[Vec<String>], delimiter: &str) -> String {
    let lines = names.into_iter().chain(rows.iter().map(Vec::as_slice));
    lines.fold(String::new(), |text, row| {
        text + &row.join(delimiter) + "\n"
    })
}

/// A row with the names of its columns, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Named(pub(super) Vec<(String, Value)>);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Named {
    pub(super) fn to_value(&self) -> Value {
        Value::Object(self.0.iter().cloned().collect())
    }
}

/// A cell as a person reads it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn cells(row: &[&str]) -> Vec<String> {
        row.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn a_title_stands_in_the_first_line() {
        let columns = [Column::left("Member"), Column::right("TL")];
        let rows = [cells(&["n1", "1"]), cells(&["a-long-name", "12"])];
        expect![[r#"
            + Cluster: c (7) --+
            | Member      | TL |
            +-------------+----+
            | n1          |  1 |
            | a-long-name | 12 |
            +-------------+----+
        "#]]
        .assert_eq(&pretty(" Cluster: c (7) ", &columns, &rows));
        expect![[r#"
            + a title that is +
            | Member     | TL |
            +------------+----+
            | a: 1       |  1 |
            | b: 2       |    |
            +------------+----+
            | other-name |  2 |
            +------------+----+
        "#]]
        .assert_eq(&pretty(
            " a title that is much too long",
            &columns,
            &[cells(&["a: 1\nb: 2", "1"]), cells(&["other-name", "2"])],
        ));
    }

    #[test]
    fn nothing_is_a_frame_too() {
        expect![[r#"
            +----+
            | TL |
            +----+
            +----+
        "#]]
        .assert_eq(&pretty("", &[Column::right("TL")], &[]));
    }
}
