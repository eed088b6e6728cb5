//! The proxy in front of one real server.

mod pair;
mod server;

mod failure;
mod leaks;
mod matrix;
mod plain;
mod pooling;
mod service;
mod tls;
