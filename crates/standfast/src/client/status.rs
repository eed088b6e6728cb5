//! `status`: one screen.

use super::{Target, explain, state};
use crate::exit::ExitCode;
use crate::output;
use crate::pidfile;
use api::v1::{Explain, Proxy, State};
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
    let code = state::note_silence(&state);
    let explain: Explain = target.api.get("/api/v1/explain").await?;
    if as_json {
        let document = serde_json::json!({ "agent_pid": pid, "state": state, "explain": explain });
        output::json(&document)?;
    } else {
        output::print(&text(&state, &explain));
    }
    Ok(code)
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
    if !state.proxies.is_empty() {
        let _ = writeln!(text, "Proxies: {}", proxies(state));
    }
    if let Some(switchover) = &state.switchover {
        let _ = writeln!(text, "Ordered: {switchover}");
    }
    let _ = write!(text, "\n{}", state::text(state));
    let troubles = state.nodes.iter().flat_map(|node| {
        let troubles = node.troubles.iter();
        troubles.map(|trouble| format!("Trouble at {}: {trouble}\n", node.name))
    });
    let troubles: String = troubles.collect();
    if !troubles.is_empty() {
        let _ = writeln!(text, "{troubles}");
    }
    text.push_str(&explain::text(why));
    text
}

/// One that has not seen the newest leadership says so.
fn proxies(state: &State) -> String {
    let proxy = |proxy: &Proxy| {
        let at = proxy.address.as_ref();
        let at = at.map_or_else(String::new, |address| format!(" at {address}"));
        match proxy.epoch == state.epoch {
            true => format!("{}{at}", proxy.name),
            false => format!("{}{at} (in epoch {})", proxy.name, proxy.epoch),
        }
    };
    let all: Vec<String> = state.proxies.iter().map(proxy).collect();
    all.join(", ")
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
