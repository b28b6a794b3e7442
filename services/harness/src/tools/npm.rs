//! Packages of npm, pinned by a lock file, in a folder of their own.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context;

use crate::command::run;

const LIMIT: Duration = Duration::from_secs(600);

/// Makes `target` with `node_modules/`, all or nothing: it is made beside, and renamed when complete. No package runs a
/// script.
pub(super) fn install(folder: &Path, target: &Path, npm: &Path, manifest: &str, lock: &str) -> anyhow::Result<()> {
    let temporary =
        tempfile::Builder::new().prefix("tmp-").tempdir_in(folder).context("cannot make a folder to install into")?;
    let made = temporary.path().join("made");
    std::fs::create_dir(&made)?;
    std::fs::write(made.join("package.json"), manifest)?;
    std::fs::write(made.join("package-lock.json"), lock)?;
    let mut command = Command::new(npm);
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&made);
    run(&mut command, "install packages from npm", LIMIT)?;
    std::fs::rename(&made, target).with_context(|| format!("cannot put {} in place", target.display()))
}
