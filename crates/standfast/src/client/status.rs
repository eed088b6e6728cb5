//! `status`: one screen.

use super::{Target, explain, state};
use crate::exit::ExitCode;
use crate::output;
use crate::pidfile;
use api::v1::{Explain, State};
use std::fmt::Write as _;

pub(super) async fn show(target: &Target, as_json: bool) -> anyhow::Result<ExitCode> {
    let pid = match &target.config {
        Some(config) => pidfile::agent(&config.state_dir)?.map(|agent| agent.pid),
        None => None,
    };
    if !as_json && let Some(config) = &target.config {
        output::line(&match pid {
            Some(pid) => format!("Agent:   {} runs, pid {pid}", config.name),
            None => format!("Agent:   {} does not run", config.name),
        });
    }
    let state = target.state().await?;
    if !as_json {
        state::note_silence(&state);
    }
    let explain: Explain = target.api.get("/api/v1/explain").await?;
    if as_json {
        let document = serde_json::json!({ "agent_pid": pid, "state": state, "explain": explain });
        output::json(&document)?;
    } else {
        output::print(&text(&state, &explain));
    }
    Ok(ExitCode::Ok)
}

fn text(state: &State, why: &Explain) -> String {
    let mut text = String::new();
    let none = || "none".to_owned();
    let leader = state.leader.as_ref().map_or_else(none, ToString::to_string);
    let paused = if state.paused {
        ", paused: no automatic failover"
    } else {
        ""
    };
    let _ = writeln!(text, "Cluster: {}{paused}", state.scope);
    let _ = writeln!(text, "Leader:  {leader}, epoch {}", state.epoch);
    let _ = writeln!(text, "Sync:    {}", state.sync.text);
    let _ = writeln!(text, "Store:   {}", store(state));
    if let Some(switchover) = &state.switchover {
        let _ = writeln!(text, "Ordered: {switchover}");
    }
    let _ = write!(text, "\n{}", state::text(state));
    text.push_str(&explain::text(why));
    text
}

fn store(state: &State) -> String {
    let store = &state.store;
    let voters = store.voters.iter().filter(|member| member.voter);
    let names: Vec<String> = voters
        .map(|voter| match voter.reachable {
            Some(false) => format!("{} !", voter.name),
            _ => voter.name.clone(),
        })
        .collect();
    let leader = store.leader.as_deref().unwrap_or("none");
    let silent = store
        .silent_ms
        .map_or(String::new(), |ms| format!(", silent for {ms} ms"));
    if names.is_empty() {
        format!("leader {leader}{silent}")
    } else {
        format!("leader {leader}, voters {}{silent}", names.join(", "))
    }
}
