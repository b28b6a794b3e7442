//! Builds the workspace's own binaries, and finds them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// The packages whose binaries are services.
pub const SERVICES: [&str; 3] = ["millrace-edge", "millrace-worker", "millrace-projector"];

/// The first words of the line with which `cargo dev up` reports that everything is ready.
pub const UP_READY: &str = "Millrace is ready";

/// A cargo command that runs in the checkout.
pub fn cargo(root: &Path) -> Command {
    // The cargo that runs this program, if one does.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The folder with the workspace's binaries.
#[derive(Clone, Debug)]
pub struct Programs {
    target: PathBuf,
    release: bool,
}

impl Programs {
    /// The binaries in the target folder in which this program was built. Call it before any build, which may replace
    /// the running file.
    pub fn beside_us(release: bool) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot determine the path of this program")?;
        // target/debug/dev, or target/debug/deps/a-test
        let profile = |path: &&Path| path.file_name().is_some_and(|name| name == "debug" || name == "release");
        match this.ancestors().find(profile).and_then(Path::parent) {
            Some(target) => Ok(Self { target: target.to_owned(), release }),
            None => bail!("{} is not in a target folder of cargo; run it with `cargo dev`", this.display()),
        }
    }

    /// Builds the binaries of these packages and of this program, with cargo's progress on standard error.
    pub fn build(&self, root: &Path, packages: &[&str]) -> anyhow::Result<()> {
        let mut command = cargo(root);
        command.arg("build").arg("--target-dir").arg(&self.target);
        // With this program's package, shared dependencies get the same features, so that cargo reuses their builds.
        command.args([packages, &["millrace-dev"]].concat().iter().flat_map(|package| ["--package", package]));
        if self.release {
            command.arg("--release");
        }
        let status = command.status().context("cargo did not run")?;
        if !status.success() {
            bail!("cannot build {}; see cargo's messages above", packages.join(", "));
        }
        Ok(())
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.target.join(if self.release { "release" } else { "debug" }).join(name);
        if !path.is_file() {
            bail!("{} does not exist: run this without --no-build", path.display());
        }
        Ok(path)
    }
}
