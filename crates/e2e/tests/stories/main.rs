//! The stories, a file a family, in one program: it is linked once, and plays two of them at a time to its end
//! (`crates/e2e/src/slot.rs`). A family's name, in front of a story's, chooses all of it: `cargo xtask e2e proxy::`.

mod agent_restarts;
mod errands;
mod hooks;
mod pair;
mod parameters;
mod rejoining;
mod restored;
mod standby_cluster;
mod store_and_power;
mod three_nodes;
mod tls;
mod trouble;

mod etcd;
mod failsafe;
mod srv;

mod config_dir;
mod config_gone;
mod from_patroni;
mod node_by_node;
mod patroni_files;
mod patronictl;

mod half_open;
mod haproxy;
mod proxy;
mod python;

mod bad_input;
mod majors;
mod prometheus;
mod walkthrough;

mod quiet;
