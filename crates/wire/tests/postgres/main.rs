//! Against a real server: what programs of PostgreSQL say is read in full, and what a session
//! believes is what the server says of itself.

mod differential;
mod line;
mod login;
mod recording;
mod server;
mod startup;
mod traffic;
