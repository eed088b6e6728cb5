//! Alert rules and dashboard in a real Prometheus that scrapes a real cluster: they load, every series that they name
//! is there, and they fire for what happens.

use anyhow::{Context, Result, bail, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::{Answer, Host, Service, eventually, file_of, request, run_to_end};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PORT: u16 = 9090;

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../monitoring")
}

fn read(name: &str) -> Result<String> {
    let path = monitoring().join(name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[test]
fn the_alerts_do_what_their_tests_say() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        run_to_end(command.args(arguments).current_dir(monitoring())).expect("promtool is content")
    };
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

/// The expressions of every panel, for the cluster `scope`.
fn panels(scope: &str) -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&read("grafana.json")?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let found = targets
        .flatten()
        .filter_map(|target| target["expr"].as_str());
    let found: Vec<_> = found.map(|text| text.replace("$scope", scope)).collect();
    ensure!(found.len() > 20, "only {} expressions", found.len());
    Ok(found)
}

/// Names of our metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("standfast_") || word.starts_with("patroni_"))
        .map(str::to_owned)
        .collect()
}

/// Names of the samples that the nodes show.
async fn shown(world: &World<'_>) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for node in &world.cluster.nodes {
        let page = node.get("/metrics").await?;
        ensure!(page.status == 200, "{}", page.body);
        let samples = page.body.lines().filter(|line| !line.starts_with('#'));
        names.extend(samples.filter_map(|line| Some(line.split_once('{')?.0.to_owned())));
    }
    Ok(names)
}

/// An answer of Prometheus's API, percent-encoded as little as will do.
async fn asked(server: &Host, path: &str, query: Option<&str>) -> Result<Value> {
    let encoded: String = query
        .unwrap_or_default()
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let path = match query {
        Some(_) => format!("/api/v1/{path}?query={encoded}"),
        None => format!("/api/v1/{path}"),
    };
    let address = format!("{}:{PORT}", server.address());
    let Answer { status, body } =
        request("GET", &address, &path, None, None, Duration::from_secs(5)).await?;
    ensure!(status == 200, "{path}: {status} {body}");
    Ok(serde_json::from_str(&body)?)
}

/// The alerts that fire now.
async fn firing(server: &Host) -> Result<BTreeSet<String>> {
    let answer = asked(server, "alerts", None).await?;
    let alerts = answer["data"]["alerts"].as_array().context("no list")?;
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    Ok(firing
        .filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned))
        .collect())
}

fn configuration(world: &World<'_>) -> String {
    let targets: Vec<_> = world
        .cluster
        .nodes
        .iter()
        .map(|node| format!("\"{}\"", node.api))
        .collect();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [alerts.yml]\n\
         scrape_configs:\n  - job_name: standfast\n    scheme: https\n    tls_config: {{ca_file: {}}}\n    static_configs: [{{targets: [{}]}}]\n",
        world.authority().display(),
        targets.join(", ")
    )
}

#[test]
fn alerts_and_dashboard_fit_a_real_cluster() {
    let name = "alerts_and_dashboard_fit_a_real_cluster";
    story(
        name,
        Topology::ThreeWithTls,
        Announced::POWER,
        async |world| {
            // Patroni's tools go where the members say; they say HTTPS.
            let cluster = world.cluster.nodes[0].get("/cluster").await?.json()?;
            let url = cluster["members"][0]["api_url"]
                .as_str()
                .unwrap_or_default();
            ensure!(url.starts_with("https://"), "{url}");
            let names = shown(world).await?;
            let rules = read("alerts.yml")?;
            let scope = names_scope(world).await?;
            let panels = panels(&scope)?;
            let wanted: BTreeSet<_> = named(&rules)
                .union(&named(&panels.join("\n")))
                .cloned()
                .collect();
            let missing: Vec<_> = wanted.difference(&names).collect();
            ensure!(missing.is_empty(), "nobody shows {missing:?}");
            ensure!(wanted.len() > 25, "{wanted:?}");

            let host = world.lab.add_host("prom", 42)?;
            // The length of the wait is Prometheus's own affair.
            file_of(&host, "alerts.yml", &rules.replace("for: 15s", "for: 2s"))?;
            let file = file_of(&host, "prometheus.yml", &configuration(world))?;
            let config = format!("--config.file={}", file.display());
            let data = format!(
                "--storage.tsdb.path={}",
                host.directory().join("tsdb").display()
            );
            let listen = format!("--web.listen-address={}:{PORT}", host.address());
            let mut prometheus = Service::start(&host, "prometheus", &[&config, &data, &listen])?;
            eventually("all nodes are scraped", settle_deadline(), async || {
                let up = asked(&host, "query", Some("sum(up{job=\"standfast\"}) == 3")).await?;
                ensure!(
                    up["data"]["result"]
                        .as_array()
                        .is_some_and(|it| !it.is_empty()),
                    "{up}"
                );
                Ok(())
            })
            .await?;
            prometheus.check()?;

            let rules = asked(&host, "rules", None).await?;
            let rules = rules["data"]["groups"][0]["rules"]
                .as_array()
                .context("no rules")?
                .clone();
            ensure!(
                rules.iter().all(|rule| rule["lastError"].is_null()),
                "{rules:?}"
            );
            for panel in &panels {
                let answer = asked(&host, "query", Some(panel))
                    .await
                    .with_context(|| panel.clone())?;
                if answer["status"] != "success" {
                    bail!("{panel}: {answer}");
                }
            }

            // A standby's agent is gone, and comes back.
            let standby = world.cluster.standbys().await?.remove(0);
            world.cluster.node_mut(&standby)?.kill_everything()?;
            eventually("its absence is an alert", settle_deadline(), async || {
                let firing = firing(&host).await?;
                ensure!(firing.contains("StandfastAgentDown"), "{firing:?}");
                Ok(())
            })
            .await?;
            let others = firing(&host).await?;
            ensure!(!others.contains("StandfastNoPrimary"), "{others:?}");
            world.cluster.node_mut(&standby)?.start()?;
            world.whole().await?;
            eventually("the alert goes", settle_deadline(), async || {
                let firing = firing(&host).await?;
                ensure!(!firing.contains("StandfastAgentDown"), "{firing:?}");
                Ok(())
            })
            .await
        },
    );
}

/// The cluster's name, as its nodes say it.
async fn names_scope(world: &World<'_>) -> Result<String> {
    let status = world.cluster.nodes[0].get("/patroni").await?.json()?;
    let scope = status["patroni"]["scope"].as_str();
    scope.map(str::to_owned).context("no scope")
}
