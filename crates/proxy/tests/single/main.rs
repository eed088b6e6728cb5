//! The proxy in front of one real server.

mod alone;
mod pair;
mod raw;
mod server;

mod console;
mod failure;
mod floods;
mod hostile;
mod leaks;
mod loans;
mod logins;
mod matrix;
mod names;
mod odd_login;
mod odd_server;
mod peers;
mod pipelines;
mod plain;
mod pooling;
mod quota;
mod reading;
mod restored;
mod scripts;
mod service;
mod silence;
mod sources;
mod tls;
mod trouble;
mod wakeups;
mod zombie;
