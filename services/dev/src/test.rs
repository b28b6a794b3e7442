//! `cargo dev test`: everything that CI checks, in order, until the first failure.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use millrace_harness::{checkout, programs::cargo, tools::Tools};

use crate::{schemas_command, terminal::Output};

const HELP: &str = "\
In order, stopping at the first failure: the outside tools, the format, the lints, the schemas in schemas/, the build, and all tests
with the processes and the servers that they need. It ends with what the test runners say.

Examples:
  cargo dev test                       Everything
  cargo dev test canceled              Only the tests with `canceled` in their name
  MILLRACE_TEST_LOGS=1 cargo dev test canceled
                                       The same, with what all processes log";

/// Checks and tests everything, as CI does
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Runs only the tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = checkout();
    let output = Output::new();
    let step = |words: &str| output.plain(&format!("\n{}", output.bold(&format!("── {words}"))));
    if args.filters.is_empty() {
        step("Tools");
        let tools = Tools::ensure_tests(&root, &mut |words| output.plain(words))?;
        output.plain(&format!("{tools:#?}"));
        step("Format");
        if has_component(&root, "fmt", output)? {
            run_cargo(&root, &["fmt", "--all", "--check"])?;
        }
        step("Lints");
        if has_component(&root, "clippy", output)? {
            run_cargo(&root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
        }
        step("Schemas");
        if schemas_command::check()? != ExitCode::SUCCESS {
            bail!("schemas/ is not what the Rust types say; run `cargo dev schemas` and look at the difference");
        }
    }
    step("Build");
    // All targets: with the same features of the dependencies as the tests, and with every binary that they start.
    run_cargo(&root, &["build", "--workspace", "--all-targets"])?;
    step("Tests");
    let mut tests = vec!["test", "--workspace"];
    if !args.filters.is_empty() {
        tests.push("--");
        tests.extend(args.filters.iter().map(String::as_str));
    }
    // The last words are those of the test runners.
    let status = cargo(&root).args(&tests).status().context("cargo did not run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_cargo(root: &Path, args: &[&str]) -> anyhow::Result<()> {
    let status = cargo(root).args(args).status().context("cargo did not run")?;
    if !status.success() {
        bail!("`cargo {}` has failed", args.join(" "));
    }
    Ok(())
}

/// Whether cargo has this component. CI must have it; elsewhere its step is passed over.
fn has_component(root: &Path, name: &str, output: Output) -> anyhow::Result<bool> {
    let there = cargo(root).args([name, "--version"]).output().is_ok_and(|output| output.status.success());
    if !there && std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("`cargo {name}` is not installed; install it by `rustup component add {}`", component(name));
    }
    if !there {
        output.plain(&format!(
            "`cargo {name}` is not installed, so this step is passed over; install it by `rustup component add {}`",
            component(name)
        ));
    }
    Ok(there)
}

fn component(name: &str) -> &str {
    if name == "fmt" { "rustfmt" } else { name }
}
