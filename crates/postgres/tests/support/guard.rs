//! What the tests run in place of `standfast guard`.

use std::process::ExitCode;

fn main() -> ExitCode {
    guard::main(std::env::args_os().skip(1).collect())
}
