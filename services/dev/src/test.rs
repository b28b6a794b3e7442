//! `cargo dev test`: everything that CI checks, in order, until the first failure.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    path::Path,
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context, bail};
use millrace_harness::{checkout, programs::cargo, tools::Tools};
use serde_json::Value;

use crate::{schemas_command, terminal::Output};

/// The end-to-end tests: they wait for servers, leases and downloads most of the time.
const WAITING: &str = "e2e";
/// Tests at once that keep a processor busy.
const WAITING_PER_PROCESSOR: usize = 2;
/// Runs alone, since it checks time limits under full load.
const ALONE: &str = "chaos";

const HELP: &str = "\
Runs in order, and stops at the first failure: the outside tools, the format, the lints, the schemas in schemas/, the
build, and all tests with the processes and servers that they need. The end-to-end tests mostly wait, so they run beside
the others, whose output follows theirs; chaos runs last, alone. The test runners' summaries come at the end.

Examples:
  cargo dev test                       Everything
  cargo dev test canceled              Only the tests with `canceled` in their name
  MILLRACE_TEST_LOGS=1 cargo dev test canceled
                                       The same, with the log lines of all processes";

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
            bail!("schemas/ differs from the Rust types; run `cargo dev schemas` and review the difference");
        }
    }
    step("Build");
    // All targets: with the same features of the dependencies as the tests, and with every binary that they start.
    run_cargo(&root, &["build", "--workspace", "--all-targets"])?;
    step("Tests");
    // Not the examples in comments, of which there are none (tests/tidy.rs): rustdoc would read each crate once more.
    if !args.filters.is_empty() {
        let filters = ["--all-targets", "--"].into_iter().chain(args.filters.iter().map(String::as_str)).collect();
        return Ok(code(tests(&root, filters).status().context("cargo did not run")?.success()));
    }
    let others = others(&root)?;
    let others = ["--lib", "--bins"].into_iter().chain(others.iter().flat_map(|name| ["--test", name])).collect();
    let threads = thread::available_parallelism().map_or(2, usize::from) * WAITING_PER_PROCESSOR;
    let threads = format!("--test-threads={threads}");
    let all = beside(tests(&root, vec!["--test", WAITING, "--", &threads]), tests(&root, others))?
        && tests(&root, vec!["--test", ALONE]).status().context("cargo did not run")?.success();
    Ok(code(all))
}

fn code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tests(root: &Path, args: Vec<&str>) -> Command {
    let mut command = cargo(root);
    command.args(["test", "--workspace"]).args(args);
    command
}

/// The names of all other integration tests, so that a new one is never left out.
fn others(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let output = cargo(root).args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata did not answer in JSON")?;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let targets = list(&metadata, "packages").into_iter().flat_map(|package| list(&package, "targets"));
    let tests = targets.filter(|target| list(target, "kind").contains(&Value::from("test")));
    let mut names: BTreeSet<_> = tests.filter_map(|test| Some(test["name"].as_str()?.to_owned())).collect();
    for apart in [WAITING, ALONE] {
        if !names.remove(apart) {
            bail!("the integration test `{apart}` no longer exists; correct the list of tests that run apart");
        }
    }
    Ok(names)
}

/// Runs both at the same time, and prints the second one's output after the first one's; returns whether both
/// succeeded.
fn beside(mut first: Command, mut second: Command) -> anyhow::Result<bool> {
    let (mut said, to) = std::io::pipe()?;
    let mut child = second.stdout(to.try_clone()?).stderr(to).spawn().context("cargo did not run")?;
    // It holds the pipe's other end, which would otherwise stay open.
    drop(second);
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        said.read_to_end(&mut text).map(|_| text)
    });
    let first = first.status().context("cargo did not run")?.success();
    let text = reader.join().expect("no panic while reading")?;
    std::io::stdout().write_all(&text)?;
    Ok(child.wait()?.success() && first)
}

fn run_cargo(root: &Path, args: &[&str]) -> anyhow::Result<()> {
    let status = cargo(root).args(args).status().context("cargo did not run")?;
    if !status.success() {
        bail!("`cargo {}` has failed", args.join(" "));
    }
    Ok(())
}

/// Whether cargo has this component. CI must have it; elsewhere its step is skipped.
fn has_component(root: &Path, name: &str, output: Output) -> anyhow::Result<bool> {
    let there = cargo(root).args([name, "--version"]).output().is_ok_and(|output| output.status.success());
    if !there && std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("`cargo {name}` is not installed; install it with `rustup component add {}`", component(name));
    }
    if !there {
        output.plain(&format!(
            "`cargo {name}` is not installed, so this step is skipped; install it with `rustup component add {}`",
            component(name)
        ));
    }
    Ok(there)
}

fn component(name: &str) -> &str {
    if name == "fmt" { "rustfmt" } else { name }
}
