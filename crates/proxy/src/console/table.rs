//! Rows of text, as a server sends them.

use std::ffi::CString;
use wire::List;
use wire::backend::{Column, Message};

/// PostgreSQL's number of the type `text`.
const TEXT: u32 = 25;

/// What SHOW answers.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &'static [&'static str]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// One value for each column.
    pub(super) fn row(&mut self, row: impl IntoIterator<Item = String>) {
        let row: Vec<_> = row.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "{row:?}");
        self.rows.push(row);
    }

    /// Whether a row begins with this.
    pub(super) fn has(&self, first: &str) -> bool {
        self.rows.iter().any(|row| row[0] == first)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let names: Vec<_> = self
            .columns
            .iter()
            .map(|name| CString::new(*name).unwrap_or_default())
            .collect();
        let columns = names.iter().map(|name| Column {
            name,
            table: 0,
            attribute: 0,
            data_type: TEXT,
            type_len: u16::MAX,
            type_modifier: u32::MAX,
            format: 0,
        });
        let mut room = Vec::new();
        // The columns are few, and of a row none is longer than a name.
        let _ = Message::RowDescription(List::write(columns, &mut room)).encode(out);
        for row in &self.rows {
            let values = row.iter().map(|value| Some(value.as_bytes()));
            let _ = Message::DataRow(List::write(values, &mut room)).encode(out);
        }
        let _ = Message::CommandComplete(c"SHOW").encode(out);
    }
}
