//! Tables in pg_auto_failover's frame: right-aligned columns, ` | ` between them, a rule of `-+-`, an empty line
//! behind.

use std::fmt::Write as _;

/// A column: its title, and how wide it is at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    width: usize,
    left: bool,
}

impl Column {
    /// As wide as its content, right-aligned.
    pub(super) const fn new(title: &'static str) -> Self {
        Self {
            title,
            width: 0,
            left: false,
        }
    }

    pub(super) const fn width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// For sentences in the last column.
    pub(super) const fn left(self) -> Self {
        Self { left: true, ..self }
    }
}

/// The whole table.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let widths = widths(columns, rows);
    let mut text = head(columns, &widths);
    for cells in rows {
        let _ = writeln!(text, "{}", row(columns, &widths, cells));
    }
    text.push('\n');
    text
}

/// Titles and rule.
pub(super) fn head(columns: &[Column], widths: &[usize]) -> String {
    let titles: Vec<String> = columns
        .iter()
        .map(|column| column.title.to_owned())
        .collect();
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    format!("{}\n{}\n", row(columns, widths, &titles), rules.join("-+-"))
}

/// One line, for tables that grow while one looks at them.
pub(super) fn row(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let aligned = columns
        .iter()
        .zip(widths)
        .zip(cells)
        .map(|((column, width), cell)| {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            if column.left {
                cell.clone() + &padding
            } else {
                padding + cell
            }
        });
    aligned
        .collect::<Vec<_>>()
        .join(" | ")
        .trim_end()
        .to_owned()
}

pub(super) fn widths(columns: &[Column], rows: &[Vec<String>]) -> Vec<usize> {
    let content = |n: usize| rows.iter().map(move |cells| cells[n].chars().count()).max();
    columns
        .iter()
        .enumerate()
        .map(|(n, column)| {
            let least = column.width.max(column.title.chars().count());
            // A sentence does not widen the rule.
            if column.left && column.width > 0 {
                least
            } else {
                least.max(content(n).unwrap_or(0))
            }
        })
        .collect()
}
