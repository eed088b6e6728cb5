//! `edit-config`: the cluster's configuration, changed by keys, by a file or in an editor.
//!
//! **Invariant:** what is sent is the difference alone, so that a change that somebody else makes meanwhile to another
//! key stays; a member refuses what can't be understood.

use super::act::order;
use super::reach::Reach;
use super::show::named;
use super::typed::EditConfig;
use super::{ask, diff, yaml};
use crate::config::yaml_to_json;
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::client::Method;
use serde_json::{Map, Value};
use std::path::Path;
use std::process::Command;

type Config = Map<String, Value>;

pub(super) async fn edit(reach: &Reach, typed: &EditConfig) -> Result<ExitCode, Failure> {
    let cluster = named(reach, &typed.cluster).await?;
    let Some(before) = cluster.config.clone() else {
        let what = format!(
            "The config key does not exist in the cluster {}",
            cluster.scope
        );
        return Err(Failure::unknown(what));
    };
    let after = wanted(&before, typed, &cluster.scope)?;
    if after == before {
        if !typed.quiet {
            output::line("Not changed");
        }
        return Ok(ExitCode::Ok);
    }
    if !typed.quiet {
        let text = |config: &Config| yaml::block(&Value::Object(config.clone()));
        output::print(&diff::unified(&text(&before), &text(&after)));
    }
    let from_stdin = [&typed.apply, &typed.replace]
        .into_iter()
        .flatten()
        .any(|file| file.as_os_str() == "-");
    if from_stdin && !typed.force.force {
        // Whoever would be asked has been read to its end.
        output::line("Use --force option to apply changes");
        return Ok(ExitCode::Refused);
    }
    if !typed.force.force && !ask::confirm("Apply these changes?")? {
        return Ok(ExitCode::Refused);
    }
    let change = Value::Object(difference(&before, &after));
    let answer = order(reach, &cluster, Method::PATCH, "config", Some(&change)).await?;
    if answer.is_good() {
        output::line("Configuration changed");
        return Ok(ExitCode::Ok);
    }
    Err(Failure::error(format!(
        "the change was refused with {}: {}",
        answer.status, answer.text
    )))
}

fn wanted(before: &Config, typed: &EditConfig, scope: &str) -> Result<Config, Failure> {
    let mut after = before.clone();
    let mut asked = false;
    for (file, replaces) in [(&typed.replace, true), (&typed.apply, false)] {
        let Some(file) = file else { continue };
        asked = true;
        if replaces {
            after.clear();
        }
        patch(&mut after, object(&read(file)?)?);
    }
    let pg = typed
        .pg
        .iter()
        .map(|pair| format!("postgresql.parameters.{}", pair.trim_start()));
    for pair in typed.set.iter().cloned().chain(pg) {
        asked = true;
        let (path, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("Invalid parameter setting {pair}")))?;
        let value = yaml_to_json(value)
            .map_err(|why| Failure::usage(format!("Invalid parameter setting {pair}: {why}")))?;
        let path: Vec<&str> = path.trim().split('.').collect();
        set(&mut after, &path, value, &[]);
    }
    if asked {
        return Ok(after);
    }
    object(&in_editor(
        &yaml::block(&Value::Object(before.clone())),
        scope,
    )?)
}

/// The names of PostgreSQL's parameters may have dots in them.
fn set(config: &mut Config, path: &[&str], value: Value, above: &[&str]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() || *above == ["postgresql", "parameters"] {
        let key = path.join(".");
        match value {
            Value::Null => drop(config.remove(&key)),
            value => drop(config.insert(key, value)),
        }
        return;
    }
    let inner = config
        .entry(*first)
        .or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        set(inner, rest, value, &[above, &[first]].concat());
        if inner.is_empty() {
            config.remove(*first);
        }
    }
}

/// Mappings grow together, `null` takes a key away.
fn patch(config: &mut Config, change: Config) {
    for (key, value) in change {
        match (config.get_mut(&key), value) {
            (_, Value::Null) => drop(config.remove(&key)),
            (Some(Value::Object(inner)), Value::Object(change)) => patch(inner, change),
            (_, value) => drop(config.insert(key, value)),
        }
    }
}

/// What turns one into the other when it is merged.
fn difference(before: &Config, after: &Config) -> Config {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let mut change: Config = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in after {
        match (before.get(key), value) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                change.insert(key.clone(), Value::Object(difference(old, new)));
            }
            (_, new) => drop(change.insert(key.clone(), new.clone())),
        }
    }
    change
}

fn object(text: &str) -> Result<Config, Failure> {
    match yaml_to_json(text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Failure::error(
            "the configuration must be a mapping of keys to values",
        )),
        Err(why) => Err(Failure::error(format!("this is no YAML: {why}"))),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    text.map_err(|error| Failure::error(format!("can't read {}: {error}", file.display())))
}

fn in_editor(text: &str, scope: &str) -> Result<String, Failure> {
    let named = std::env::var("EDITOR").ok().filter(|it| !it.is_empty());
    let editor = named.or_else(|| {
        let known = ["editor", "vi"].into_iter();
        known.map(str::to_owned).find(|it| on_path(it))
    });
    let editor = editor.ok_or_else(|| {
        Failure::error("EDITOR environment variable is not set. editor or vi are not available")
    })?;
    let broken = |error: std::io::Error| Failure::error(format!("a file for the editor: {error}"));
    let place = std::env::temp_dir();
    let file = place.join(format!("{scope}-config-{}.yaml", std::process::id()));
    crate::config::write_private(&file, text.as_bytes())
        .map_err(|error| Failure::error(format!("a file for the editor: {error}")))?;
    let edited = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(&file)
        .status()
        .map_err(broken)
        .and_then(|status| match status.success() {
            true => std::fs::read_to_string(&file).map_err(broken),
            false => Err(Failure::error(format!("the editor ended with {status}"))),
        });
    let _ = std::fs::remove_file(&file);
    edited
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Config {
        let Value::Object(config) = value else {
            panic!("an object")
        };
        config
    }

    fn check(before: Value, path: &str, value: Value, after: Value) {
        let before = config(before);
        let mut changed = before.clone();
        let path: Vec<&str> = path.split('.').collect();
        set(&mut changed, &path, value, &[]);
        assert_eq!(Value::Object(changed.clone()), after);
        // And the difference leads there.
        let mut merged = before.clone();
        patch(&mut merged, difference(&before, &changed));
        assert_eq!(merged, changed);
    }

    #[test]
    fn keys_are_paths_and_parameters_may_have_dots() {
        check(json!({}), "ttl", json!(5), json!({"ttl": 5}));
        check(json!({"ttl": 5}), "ttl", Value::Null, json!({}));
        check(
            json!({"postgresql": {"use_pg_rewind": true}}),
            "postgresql.parameters.pg_stat_statements.max",
            json!(100),
            json!({"postgresql": {"use_pg_rewind": true,
                "parameters": {"pg_stat_statements.max": 100}}}),
        );
        check(
            json!({"postgresql": {"parameters": {"x": 1}}, "a": 1}),
            "postgresql.parameters.x",
            Value::Null,
            json!({"a": 1}),
        );
        check(
            json!({"slots": 1}),
            "slots.a.type",
            json!("physical"),
            json!({"slots": {"a": {"type": "physical"}}}),
        );
    }
}
