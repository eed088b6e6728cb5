//! The command line in two steps: what was typed ([`typed`]), and what it means ([`meant`]).

pub(crate) mod meant;
pub(crate) mod monitor_url;
pub(crate) mod typed;

#[cfg(test)]
mod tests;
