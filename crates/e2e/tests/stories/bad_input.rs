//! What people get wrong: each a clear error that says what, where and what to do, with the
//! documented exit code; nothing is destroyed, and the same command works once the cause is gone.
//!
//! All on loopback, but for the full disks, which need mounts of their own.

mod desk;

mod create;
mod full_disk;
mod interrupted;
mod joining;
mod running_cluster;
mod yaml;

mod data_directories;
mod orders;
mod paths;
mod rest;
mod secrets;
