//! The metrics: Patroni's names as they are, ours beside them, all in a form that Prometheus reads.

use crate::world::World;
use api::{Metric, MetricKind, Sample};
use std::collections::BTreeMap;

/// Each sample by its name and labels; fails on anything that is no exposition format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut typed = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(matches!(kind, "gauge" | "counter" | "histogram"), "{line}");
            typed = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(
                series.starts_with(&typed) && series.ends_with('}'),
                "{line} under {typed}"
            );
            let value = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "twice: {line}"
            );
        }
    }
    samples
}

/// Patroni: REST | metrics under Patroni's names | work
#[tokio::test]
async fn patronis_metrics_have_their_names_and_values() {
    let world = World::three().await;
    for (node, expected) in [
        (
            "a",
            [
                ("version", 40105.0),
                ("postgres_running", 1.0),
                ("postmaster_start_time", 1_795_304_818.047_674),
                ("primary", 1.0),
                ("xlog_location", 67393864.0),
                ("standby_leader", 0.0),
                ("replica", 0.0),
                ("sync_standby", 0.0),
                ("quorum_standby", 0.0),
                ("xlog_received_location", 0.0),
                ("xlog_replayed_location", 0.0),
                ("xlog_replayed_timestamp", 0.0),
                ("xlog_paused", 0.0),
                ("postgres_streaming", 0.0),
                ("postgres_in_archive_recovery", 0.0),
                ("postgres_server_version", 150018.0),
                ("cluster_unlocked", 0.0),
                ("failsafe_mode_is_active", 0.0),
                ("postgres_timeline", 2.0),
                ("pending_restart", 0.0),
                ("is_paused", 0.0),
                ("postgres_state", 5.0),
            ],
        ),
        (
            "b",
            [
                ("version", 40105.0),
                ("postgres_running", 1.0),
                ("postmaster_start_time", 1_795_304_818.047_674),
                ("primary", 0.0),
                ("xlog_location", 0.0),
                ("standby_leader", 0.0),
                ("replica", 1.0),
                ("sync_standby", 0.0),
                ("quorum_standby", 1.0),
                ("xlog_received_location", 67393864.0),
                ("xlog_replayed_location", 67393864.0),
                ("xlog_replayed_timestamp", 0.0),
                ("xlog_paused", 0.0),
                ("postgres_streaming", 1.0),
                ("postgres_in_archive_recovery", 0.0),
                ("postgres_server_version", 150018.0),
                ("cluster_unlocked", 0.0),
                ("failsafe_mode_is_active", 0.0),
                ("postgres_timeline", 2.0),
                ("pending_restart", 0.0),
                ("is_paused", 0.0),
                ("postgres_state", 5.0),
            ],
        ),
    ] {
        let server = world.serve(node).await;
        let response = server.get("/metrics").await;
        assert_eq!(response.headers()["content-type"], "text/plain");
        let text = response.text().await.expect("a body");
        assert!(text.contains(&format!(
            "patroni_version{{scope=\"demo\",name=\"{node}\"}} 040105\n"
        )));
        let samples = parse(&text);
        for (metric, value) in expected {
            let series = format!("patroni_{metric}{{scope=\"demo\",name=\"{node}\"}}");
            assert_eq!(samples.get(&series), Some(&value), "{series}");
        }
        let seen = samples[&format!("patroni_dcs_last_seen{{scope=\"demo\",name=\"{node}\"}}")];
        assert!(seen > 1e9);
    }
}

#[tokio::test]
async fn our_metrics_name_epoch_lease_and_protection() {
    let world = World::three().await;
    let server = world.serve("a").await;
    server.get("/api/v1/state").await;
    server.publish(|served| {
        served.metrics.push(Metric {
            name: "standfast_failovers_total",
            help: "Failovers by reason.",
            kind: MetricKind::Counter,
            samples: vec![Sample {
                suffix: "",
                labels: vec![("reason", "a \"b\"\\\n".to_owned())],
                value: 2.0,
            }],
        });
    });
    let text = server.get("/metrics").await.text().await.expect("a body");
    let samples = parse(&text);
    let value = |name: &str| samples[&format!("{name}{{scope=\"demo\",name=\"a\"}}")];
    assert_eq!(value("standfast_epoch"), 7.0);
    assert_eq!(value("standfast_writable"), 1.0);
    assert!((50.0..60.0).contains(&value("standfast_lease_left_seconds")));
    assert_eq!(value("standfast_sync_standbys"), 2.0);
    assert_eq!(value("standfast_sync_needed"), 1.0);
    assert_eq!(value("standfast_store_voters"), 3.0);
    assert!(value("standfast_loop_age_seconds") < 30.0);
    let failovers = r#"standfast_failovers_total{scope="demo",name="a",reason="a \"b\"\\\n"}"#;
    assert_eq!(samples[failovers], 2.0);
}
