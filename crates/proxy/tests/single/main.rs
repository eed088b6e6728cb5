//! The proxy in front of one real server.

mod server;

mod failure;
mod plain;
mod pooling;
