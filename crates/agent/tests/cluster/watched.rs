//! The machine's watchdog device: a node that must be watched leads only while it is.

use crate::node::{Wishes, free_ports, until, wishing};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use std::path::Path;
use std::time::Duration;
use store::MemoryStore;
use store::layout::Keys;

/// Patroni: Configuration | `watchdog` | works: fed by the guard, so that an agent that hangs costs no reset; without the
///   section there is none
pub(crate) async fn a_node_that_must_be_watched(root: &Path, limit: Duration) {
    std::fs::create_dir_all(root).expect("a directory");
    let store = MemoryStore::new();
    let keys = Keys::new("service", "watched");
    let [port] = free_ports();
    let device = root.join("watchdog");
    let wishes = Wishes {
        watchdog: Some(agent::Watchdog {
            device: device.clone(),
            required: true,
            margin: None,
        }),
        ..Wishes::default()
    };
    let a = wishing(root, &store, &keys, "a", port, wishes).await;
    until("without its device it founds no cluster", limit, || {
        let served = a.shown.borrow();
        let reason = served.decision.as_ref().map(|it| it.reason.clone());
        reason.is_some_and(|reason| reason.contains("watchdog.mode is required"))
    })
    .await;
    mknodat(CWD, &device, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = rustix::fs::open(&device, flags, Mode::empty()).expect("its end");
    let mut heard = Vec::new();
    let mut hear = || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = rustix::io::read(&reader, &mut buffer) {
            heard.extend_from_slice(&buffer[..length]);
        }
        heard.clone()
    };
    until("with it a leads", limit, || a.is_open_primary()).await;
    until("and is watched", limit, || hear().len() > 3).await;
    assert!(!hear().contains(&b'V'));
    // The device goes: the pipe has no reader any more, and the next deadline finds none.
    std::fs::remove_file(&device).expect("removed");
    a.kill_postmaster();
    until("nothing of the dead primary is watched", limit, || {
        hear().contains(&b'V')
    })
    .await;
    until("without it a leads no more", limit, || {
        let served = a.shown.borrow();
        served.watchdog_failed
            && served
                .cluster
                .as_ref()
                .is_some_and(|it| it.leader.is_none())
    })
    .await;
    a.handle.stop(agent::StopOrder::InOrder);
    let ended = tokio::time::timeout(limit, a.task).await;
    println!("{} ended: {ended:?}", a.name);
}
