//! Python packages, pinned by hash, each set in its own folder.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use anyhow::Context;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::command::run;

const LIMIT: Duration = Duration::from_secs(600);

/// Part of a folder's name. Change it when [`install`] makes different files from the same requirements.
const RECIPE: &str = "1";

/// The folder that holds exactly these requirements, installed for this interpreter.
pub(super) fn folder_name(name: &str, requirements: &str, python: &Path) -> String {
    let mut hash = Sha256::new();
    for part in [RECIPE.as_bytes(), requirements.as_bytes(), python.as_os_str().as_encoded_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    format!("{name}-{}", &HEXLOWER.encode(&hash.finalize())[..12])
}

/// The package names in a requirements file.
pub(super) fn names(requirements: &str) -> Vec<&str> {
    requirements
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once("==")?.0))
        .collect()
}

/// Makes `target` with the packages and `bin/`, all or nothing: it is made under another name, and renamed when
/// complete.
///
/// `with_pip` runs pip; the installed programs run on `python`. `bin/python` can import the installed packages.
pub(super) fn install(
    folder: &Path,
    target: &Path,
    requirements: &str,
    with_pip: &Path,
    python: &Path,
) -> anyhow::Result<()> {
    let temporary =
        tempfile::Builder::new().prefix("tmp-").tempdir_in(folder).context("cannot make a folder to install into")?;
    let list = temporary.path().join("requirements.txt");
    std::fs::write(&list, requirements)?;
    let made = temporary.path().join("made");
    run(
        Command::new(with_pip)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
                "--no-warn-script-location",
            ])
            .args(["--require-hashes", "--only-binary", ":all:", "--no-deps", "--root-user-action", "ignore"])
            .arg("--target")
            .arg(&made)
            .arg("--requirement")
            .arg(&list),
        &format!("install {} from PyPI", names(requirements).join(" and ")),
        LIMIT,
    )?;
    let bin = made.join("bin");
    std::fs::create_dir_all(&bin)?;
    if bin.join("yt-dlp").exists() {
        script(&bin.join("yt-dlp"), &yt_dlp_script(python))?;
    }
    script(&bin.join("python"), &python_script(python))?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&made, target).with_context(|| format!("cannot put {} in place", target.display()))
}

/// pip's own script does not find packages in a `--target` folder. This one does, with no help from the environment.
///
/// The first lines start Python from the shell, because a `#!` line allows neither spaces nor a long path.
fn yt_dlp_script(python: &Path) -> String {
    format!(
        r#"#!/bin/sh
'''exec' "{}" -I "$0" "$@"
' '''
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from yt_dlp import main
sys.exit(main())
"#,
        python.display()
    )
}

fn python_script(python: &Path) -> String {
    format!("#!/bin/sh\nPYTHONPATH=\"${{0%/*}}/..\" exec \"{}\" \"$@\"\n", python.display())
}

fn script(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
