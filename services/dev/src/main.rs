//! The program behind `cargo dev`.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_dev::main()
}
