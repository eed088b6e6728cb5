//! The API over real HTTP on loopback, with a store in memory and published pictures made by hand.

mod actions;
mod documents;
mod errands;
mod events;
mod floods;
mod health;
mod hostile;
mod https;
mod metrics;
mod nodes;
mod perform;
mod world;
