//! Our own binaries: where they are, and how they are built.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// The packages whose binaries are services.
pub const SERVICES: [&str; 3] = ["millrace-edge", "millrace-worker", "millrace-projector"];

/// The first words of the line by which `cargo dev up` says that everything is ready.
pub const UP_READY: &str = "Millrace is ready";

/// Cargo, to be run in the checkout.
pub fn cargo(root: &Path) -> Command {
    // The one that runs us, if one does.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The folder with our binaries.
#[derive(Clone, Debug)]
pub struct Programs {
    target: PathBuf,
    release: bool,
}

impl Programs {
    /// Those in the target folder that this program was built in. Ask before anything is built: a build may replace the
    /// running file.
    pub fn beside_us(release: bool) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot tell where this program is")?;
        // target/debug/dev, or target/debug/deps/a-test
        let profile = |path: &&Path| path.file_name().is_some_and(|name| name == "debug" || name == "release");
        match this.ancestors().find(profile).and_then(Path::parent) {
            Some(target) => Ok(Self { target: target.to_owned(), release }),
            None => bail!("{} is in no target folder of cargo; run it by `cargo dev`", this.display()),
        }
    }

    /// Builds the binaries of these packages, and this program, with cargo's own progress on standard error.
    pub fn build(&self, root: &Path, packages: &[&str]) -> anyhow::Result<()> {
        let mut command = cargo(root);
        command.arg("build").arg("--target-dir").arg(&self.target);
        // With this program's package, what they share is built with the same features, so that cargo has it already.
        command.args([packages, &["millrace-dev"]].concat().iter().flat_map(|package| ["--package", package]));
        if self.release {
            command.arg("--release");
        }
        let status = command.status().context("cargo did not run")?;
        if !status.success() {
            bail!("{} could not be built; cargo says above why", packages.join(", "));
        }
        Ok(())
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.target.join(if self.release { "release" } else { "debug" }).join(name);
        if !path.is_file() {
            bail!("{} is not there: run this without --no-build", path.display());
        }
        Ok(path)
    }
}
