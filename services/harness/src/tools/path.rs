//! Programs on the PATH, and their cached output.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::command::run;

const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// Every executable file of this name on the PATH, in its order.
pub(super) fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    which::which_all_global(name).into_iter().flatten().filter(|path| path.is_absolute())
}

/// The first dotted number in `text`, as in `nats-server: v2.15.1`.
pub(super) fn version(text: &str) -> Option<Vec<u32>> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find(|word| word.contains('.') && !word.starts_with('.'))
        .and_then(|word| word.trim_end_matches('.').split('.').map(|part| part.parse().ok()).collect())
}

/// The output of programs, kept in a file, so that an unchanged program is run only once.
pub(super) struct Probes {
    file: PathBuf,
    answers: BTreeMap<PathBuf, Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    /// Size and time of change of the program when it was run.
    stamp: (u64, i64, i64),
    /// Its standard output; `None` if it failed.
    stdout: Option<String>,
}

impl Probes {
    /// Reads the output kept in `file`. An unreadable file counts as empty, so that every program is run again.
    pub(super) fn load(file: PathBuf) -> Self {
        let answers =
            std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, answers }
    }

    /// The output of the program at `path`, run with a cleared environment but for HOME and PATH; `None` if it fails.
    pub(super) fn ask(&mut self, path: &Path, args: &[&str]) -> Option<String> {
        let meta = path.metadata().ok()?;
        let stamp = (meta.len(), meta.mtime(), meta.mtime_nsec());
        if let Some(answer) = self.answers.get(path).filter(|answer| answer.stamp == stamp) {
            return answer.stdout.clone();
        }
        let mut command = Command::new(path);
        command.args(args).env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "HOME" || name == "PATH"));
        let stdout = run(&mut command, "ask for its version", PROBE_LIMIT).ok();
        self.answers.insert(path.to_owned(), Answer { stamp, stdout: stdout.clone() });
        self.save();
        stdout
    }

    /// Forgets the output of the program at `path`.
    pub(super) fn forget(&mut self, path: &Path) {
        self.answers.remove(path);
        self.save();
    }

    /// Best effort: without the file, the next start is slower, not wrong.
    fn save(&self) {
        let Ok(bytes) = serde_json::to_vec_pretty(&self.answers) else { return };
        let Some(file) = self.file.parent().and_then(|folder| tempfile::NamedTempFile::new_in(folder).ok()) else {
            return;
        };
        if std::fs::write(file.path(), bytes).is_ok() {
            let _ = file.persist(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some(vec![2, 15, 1]));
        assert_eq!(version("2026.10.26\n"), Some(vec![2026, 10, 26]));
        assert_eq!(version("nats-server: v2.12.0-beta.2"), Some(vec![2, 12, 0]));
        assert_eq!(version("no number"), None);
    }

    #[test]
    fn a_program_is_asked_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let write = |version: &str| {
            std::fs::write(
                &program,
                format!("#!/bin/sh\necho asked >> {}\necho {version}\n", folder.path().join("log").display()),
            )
            .unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let asked = || std::fs::read_to_string(folder.path().join("log")).unwrap().lines().count();
        let ask = || Probes::load(folder.path().join("found.json")).ask(&program, &[]);
        write("1.0");
        assert_eq!((ask().as_deref(), ask().as_deref(), asked()), (Some("1.0\n"), Some("1.0\n"), 1));
        write("1.10");
        assert_eq!((ask().as_deref(), asked()), (Some("1.10\n"), 2));
    }
}
