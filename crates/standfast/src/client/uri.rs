//! `show uri`.

use super::Target;
use super::table::{Column, table};
use crate::cli::meant::WhichUri;
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::v1::Uri;
use serde_json::json;

const COLUMNS: &[Column] = &[
    Column::new("Type").width(12),
    Column::new("Name").width(7),
    Column::new("Connection String").width(30).left(),
];

pub(super) async fn show(
    target: &Target,
    which: WhichUri,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    // Complains about a formation that is not there.
    target.state().await?;
    let uri: Uri = target.api.get("/api/v1/uri").await?;
    let mut rows = Vec::new();
    if which != WhichUri::Formation {
        for monitor in &uri.monitors {
            rows.push(vec![
                "monitor".to_owned(),
                monitor.name.to_string(),
                monitor.url.clone(),
            ]);
        }
    }
    if which != WhichUri::Monitor {
        rows.push(vec![
            "formation".to_owned(),
            uri.formation.clone(),
            uri.uri.clone(),
        ]);
    }
    if rows.is_empty() {
        return Err(
            Failure::unknown("this cluster has no monitor: its nodes vote themselves").into(),
        );
    }
    if as_json {
        let documents: Vec<_> = rows
            .iter()
            .map(|row| json!({ "type": row[0], "name": row[1], "uri": row[2] }))
            .collect();
        output::json(&documents)?;
    } else if which == WhichUri::All {
        output::print(&table(COLUMNS, &rows));
    } else {
        for row in &rows {
            output::line(&row[2]);
        }
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_table_is_that_of_pg_auto_failover() {
        let row = |a: &str, b: &str, c: &str| vec![a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = [
            row("monitor", "monitor", "http://127.0.0.1:6000"),
            row(
                "formation",
                "default",
                "postgres://127.0.0.1:6010,127.0.0.1:6011/postgres?target_session_attrs=read-write",
            ),
        ];
        expect![[r#"
                    Type |    Name | Connection String
            -------------+---------+-------------------------------
                 monitor | monitor | http://127.0.0.1:6000
               formation | default | postgres://127.0.0.1:6010,127.0.0.1:6011/postgres?target_session_attrs=read-write

        "#]]
        .assert_eq(&table(COLUMNS, &rows));
    }
}
