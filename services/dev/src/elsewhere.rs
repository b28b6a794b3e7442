//! Commands of the other programs of this checkout: each is built, and then runs in the place of this one.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use millrace_harness::{checkout, programs::Programs};

/// Passed on as they were typed, `--help` too.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _args: Vec<OsString>,
}

/// Builds these packages together, and runs `program`, which is in one of them, with the arguments of this process.
pub fn run(program: &str, packages: &[&str], release: bool) -> anyhow::Result<ExitCode> {
    let programs = Programs::beside_us(release)?;
    programs.build(&checkout(), packages)?;
    let error = Command::new(programs.path(program)?).args(env::args_os().skip(1)).exec();
    Err(anyhow::Error::new(error).context(format!("{program} did not run")))
}
