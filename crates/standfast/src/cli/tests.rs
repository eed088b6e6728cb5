//! Flags as pg_autoctl takes them.
