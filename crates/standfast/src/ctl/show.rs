//! The commands that only read.

use super::cluster::Cluster;
use super::frame::{self, Column, Named};
use super::members::{self, Look};
use super::reach::Reach;
use super::typed::{Dsn, Format, History, List, OneCluster, Role, Topology, Version};
use super::{json, timestamp, watching, yaml};
use crate::client::note_silent;
use crate::exit::{ExitCode, Failure};
use crate::output;
use serde_json::Value;

pub(super) async fn list(reach: &Reach, typed: &List) -> Result<ExitCode, Failure> {
    let look = Look {
        format: typed.format,
        tree: false,
        extended: typed.extended,
    };
    watching(typed.watch, true, async || {
        if typed.timestamp {
            output::line(&timestamp(false));
        }
        all(reach, &typed.cluster_names, look).await
    })
    .await
}

pub(super) async fn topology(reach: &Reach, typed: &Topology) -> Result<ExitCode, Failure> {
    let look = Look {
        tree: true,
        ..Look::PLAIN
    };
    watching(typed.watch, true, async || {
        all(reach, &typed.cluster_names, look).await
    })
    .await
}

/// The named clusters, or the configuration's.
async fn all(reach: &Reach, names: &[String], look: Look) -> Result<ExitCode, Failure> {
    let own = reach.name(names.first().map(String::as_str))?;
    let mut names: Vec<Option<String>> = names.iter().cloned().map(Some).collect();
    if names.is_empty() {
        names.push(own);
    }
    let mut code = ExitCode::Ok;
    for name in names {
        let cluster = reach.cluster(name.as_deref()).await?;
        output::print(&members::text(&cluster, look));
        if cluster.initialize.is_none() {
            code = ExitCode::Unknown;
        } else if let Some(ms) = cluster.document.standfast.store_silent_ms {
            code = note_silent(ms);
        }
    }
    Ok(code)
}

/// The table of members, as it precedes what changes something.
pub(super) fn members(cluster: &Cluster) {
    output::print(&members::text(cluster, Look::PLAIN));
}

pub(super) async fn dsn(reach: &Reach, typed: &Dsn) -> Result<ExitCode, Failure> {
    let cluster = named(reach, &typed.cluster).await?;
    let member = cluster.one(typed.role, typed.member.as_deref())?;
    let member = member.ok_or_else(|| Failure::unknown("Can not find a suitable member"))?;
    output::line(&format!("host={} port={}", member.host, member.port));
    Ok(ExitCode::Ok)
}

pub(super) async fn history(reach: &Reach, typed: &History) -> Result<ExitCode, Failure> {
    let cluster = named(reach, &typed.cluster).await?;
    output::print(&history_text(&cluster.history, typed.format));
    Ok(ExitCode::Ok)
}

fn history_text(history: &[Vec<Value>], format: Format) -> String {
    const NAMES: [&str; 5] = ["TL", "LSN", "Reason", "Timestamp", "New Leader"];
    let lines = history.iter().map(|line| {
        let cells = line
            .iter()
            .cloned()
            .chain(std::iter::repeat(Value::from("")));
        cells.take(NAMES.len()).collect::<Vec<Value>>()
    });
    let named = |line: Vec<Value>| {
        Named(
            NAMES
                .iter()
                .map(|name| (*name).to_owned())
                .zip(line)
                .collect(),
        )
    };
    let texts = |line: Vec<Value>| line.iter().map(frame::plain).collect::<Vec<String>>();
    match format {
        Format::Pretty => {
            let columns = NAMES.map(|name| match name {
                "TL" | "LSN" => Column::right(name),
                name => Column::left(name),
            });
            frame::pretty("", &columns, &lines.map(texts).collect::<Vec<_>>())
        }
        Format::Tsv => {
            let rows: Vec<_> = lines.map(texts).collect();
            frame::separated(Some(&NAMES.map(str::to_owned)), &rows, "\t")
        }
        Format::Json => json(&lines.map(named).collect::<Vec<_>>()) + "\n",
        Format::Yaml => yaml::block(&lines.map(named).map(|line| line.to_value()).collect()) + "\n",
    }
}

pub(super) async fn config(reach: &Reach, typed: &OneCluster) -> Result<ExitCode, Failure> {
    let cluster = named(reach, typed).await?;
    if let Some(config) = cluster.config {
        output::line(&yaml::block(&Value::Object(config)));
    }
    Ok(ExitCode::Ok)
}

pub(super) fn own_version() {
    output::line(&format!(
        "patronictl version {} (standfast {})",
        store::layout::PATRONI_CONTRACT,
        env!("CARGO_PKG_VERSION")
    ));
}

pub(super) async fn version(reach: &Reach, typed: &Version) -> Result<ExitCode, Failure> {
    own_version();
    output::line("");
    let cluster = reach.cluster(typed.cluster_name.as_deref()).await?;
    exists(&cluster)?;
    let mut code = ExitCode::Ok;
    for member in cluster.with_role(Role::Any) {
        let wanted = typed.member_names.is_empty() || typed.member_names.contains(&member.name);
        if member.api_url.is_empty() || !wanted {
            continue;
        }
        let answer = reach.http.get(&member.url("patroni")).await;
        let status = answer.and_then(|answer| {
            serde_json::from_str::<Value>(&answer.text).map_err(|error| error.to_string())
        });
        match status {
            Ok(status) => {
                let version = status["patroni"]["version"].as_str().unwrap_or("None");
                let postgres = status["server_version"].as_u64();
                let postgres = postgres.map_or_else(String::new, |number| {
                    format!(" PostgreSQL {}.{}", number / 10_000, number % 100)
                });
                output::line(&format!("{}: Patroni {version}{postgres}", member.name));
            }
            Err(why) => {
                output::line(&format!("{}: failed to get version: {why}", member.name));
                code = ExitCode::Unreachable;
            }
        }
    }
    Ok(code)
}

/// The cluster that a command names or the configuration, which must exist.
pub(super) async fn named(reach: &Reach, typed: &OneCluster) -> Result<Cluster, Failure> {
    let cluster = reach.cluster(typed.cluster_name.as_deref()).await?;
    exists(&cluster)?;
    Ok(cluster)
}

pub(super) fn exists(cluster: &Cluster) -> Result<(), Failure> {
    match cluster.initialize {
        Some(_) => Ok(()),
        None => Err(Failure::unknown(format!(
            "there is no cluster {}",
            cluster.scope
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn history_is_shown_as_patronictl_shows_it() {
        let history = [
            vec![
                json!(1),
                json!(67_393_352),
                json!("no recovery target specified"),
            ],
            vec![
                json!(2),
                json!(67_394_352),
                json!("x"),
                json!("2026"),
                json!("node2"),
            ],
        ];
        expect![[r#"
            +----+----------+------------------------------+-----------+------------+
            | TL |      LSN | Reason                       | Timestamp | New Leader |
            +----+----------+------------------------------+-----------+------------+
            |  1 | 67393352 | no recovery target specified |           |            |
            |  2 | 67394352 | x                            | 2026      | node2      |
            +----+----------+------------------------------+-----------+------------+
        "#]]
        .assert_eq(&history_text(&history, Format::Pretty));
        expect![[r#"
            [{"TL": 2, "LSN": 67394352, "Reason": "x", "Timestamp": "2026", "New Leader": "node2"}]
        "#]]
        .assert_eq(&history_text(&history[1..], Format::Json));
    }
}
