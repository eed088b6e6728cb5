//! The protocol between members (and from other processes to them): one port, one secret.

pub(crate) mod auth;
pub(crate) mod connection;
mod frame;
mod handshake;
mod limit;
pub(crate) mod message;
pub(crate) mod pool;
pub(crate) mod serve;
pub(crate) mod strangers;
pub(crate) mod tls;
