//! npm packages, pinned by a lock file, each set in its own folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use super::{Finder, lock, path, pip};
use crate::command::run;

const LIMIT: Duration = Duration::from_secs(600);
/// The oldest Node that the pinned packages run on.
const NODE_MIN: [u32; 1] = [20];

impl Finder<'_> {
    /// Node, and a folder `node_modules` with the packages of a manifest and its lock file; `what` names them.
    pub(super) fn node_packages(
        &mut self,
        name: &str,
        what: &str,
        manifest: &str,
        lock: &str,
    ) -> anyhow::Result<(PathBuf, PathBuf)> {
        const NEEDED: &str = "Node 20 or newer with npm is needed on the PATH; install it";
        let node = path::on_path("node").find(|node| {
            let answer = self.probes.ask(node, &["--version"]);
            let version = answer.and_then(|text| path::version(&text));
            version.is_some_and(|version| version.as_slice() >= NODE_MIN.as_slice())
        });
        let node = node.context(NEEDED)?;
        let target = self.folder.join(pip::folder_name(name, &format!("{manifest}{lock}"), &node));
        if !target.is_dir() {
            let npm = path::on_path("npm").next().context(NEEDED)?;
            let _lock = lock::hold(&self.folder)?;
            if !target.is_dir() {
                (self.say)(&format!("installing {what} into {}", target.display()));
                install(&self.folder, &target, &npm, manifest, lock)?;
            }
        }
        Ok((node, target.join("node_modules")))
    }
}

/// Makes `target` with `node_modules/`, all or nothing: it is made under another name, and renamed when complete. No
/// package runs a script.
fn install(folder: &Path, target: &Path, npm: &Path, manifest: &str, lock: &str) -> anyhow::Result<()> {
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
