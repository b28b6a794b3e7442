//! The projector's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::service::main(&millrace_projector::SERVICE, millrace_projector::start)
}
