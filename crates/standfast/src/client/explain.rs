//! `explain`: for every node, may it lead, and if not, why.

use super::Target;
use super::table::{Column, table};
use crate::exit::ExitCode;
use crate::output;
use api::v1::Explain;

const COLUMNS: &[Column] = &[
    Column::new("Name"),
    Column::new("May Lead"),
    Column::new("Why").width(10).left(),
];

pub(super) async fn show(target: &Target, as_json: bool) -> anyhow::Result<ExitCode> {
    let code = super::state::note_silence(&target.state().await?);
    let explain: Explain = target.api.get("/api/v1/explain").await?;
    if as_json {
        output::json(&explain)?;
    } else {
        output::print(&text(&explain));
    }
    Ok(code)
}

pub(super) fn text(explain: &Explain) -> String {
    let rows: Vec<Vec<String>> = explain
        .nodes
        .iter()
        .map(|node| {
            let may = if node.may_lead { "yes" } else { "no" };
            let why = match &node.waits_for {
                // Before an election the one is the other.
                Some(waits) if !node.why.ends_with(waits) => format!("{}; {waits}", node.why),
                _ => node.why.clone(),
            };
            vec![node.name.to_string(), may.to_owned(), why]
        })
        .collect();
    format!("{}{}\n", table(COLUMNS, &rows), explain.summary)
}
