//! The worker's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::service::main(&millrace_worker::SERVICE, millrace_worker::start)
}
