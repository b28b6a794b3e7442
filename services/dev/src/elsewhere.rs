//! Commands of the checkout's other programs: this program builds each, and then replaces itself by it.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use millrace_harness::{checkout, programs::Programs};

/// Arguments passed on as typed, including `--help`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _args: Vec<OsString>,
}

/// Builds these packages together, and runs `program`, a binary of one of them, with the arguments of this process.
pub fn run(program: &str, packages: &[&str], release: bool) -> anyhow::Result<ExitCode> {
    let programs = Programs::beside_us(release)?;
    programs.build(&checkout(), packages)?;
    let error = Command::new(programs.path(program)?).args(env::args_os().skip(1)).exec();
    Err(anyhow::Error::new(error).context(format!("{program} did not run")))
}
