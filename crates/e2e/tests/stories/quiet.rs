//! What is measured, and so has the machine for itself.

mod checks;
mod idle;
