//! Debian packages, where this process may install them.

use std::{process::Command, time::Duration};

use anyhow::bail;

use super::path::on_path;
use crate::command::run;

const LIMIT: Duration = Duration::from_secs(900);

/// Installs `packages` with apt-get as root; otherwise returns an error with the command to type.
pub(super) fn install(packages: &[&str], why: &str, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let names = packages.join(" ");
    let Some(apt) = on_path("apt-get").next() else {
        bail!("{why}: install {names} with this system's package manager, and try again");
    };
    if !rustix::process::geteuid().is_root() {
        bail!("{why}: run `sudo apt-get install {names}`, and try again");
    }
    say(&format!("{why}: running `apt-get install {names}`, which may take some minutes"));
    let what = format!("install {names}");
    let apt = || {
        let mut command = Command::new(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
        // A package must not start its service: the harness starts the server itself.
        command.env("SYSTEMD_OFFLINE", "1").env("RUNLEVEL", "1");
        command
    };
    run(apt().arg("update"), &what, LIMIT)?;
    run(apt().args(["install", "-y", "--no-install-recommends"]).args(packages), &what, LIMIT)?;
    Ok(())
}
