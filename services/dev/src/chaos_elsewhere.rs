//! `cargo dev chaos` needs the S3 server of the harness, which `cargo dev` is not built with: it runs itself, built with it.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use millrace_harness::checkout;

/// Hits a whole cluster at random and checks every promise
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut cargo = millrace_harness::programs::cargo(&checkout());
    cargo.args(["run", "--quiet", "--package", "millrace-dev", "--features", "s3"]);
    cargo.args(cfg!(not(debug_assertions)).then_some("--release"));
    let error = cargo.args(["--", "chaos"]).args(&args.args).exec();
    Err(anyhow::anyhow!(error).context("cargo did not run"))
}
