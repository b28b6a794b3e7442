//! The edge's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::service::main(&millrace_edge::SERVICE, millrace_edge::start)
}
