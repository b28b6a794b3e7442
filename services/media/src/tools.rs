//! The external programs that a download runs.

use std::path::{Path, PathBuf};

use millrace_domain::limits::TOOL_VERSION_MAX;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::process::{self, RunError};

/// The oldest accepted yt-dlp: the version that this code was tested with. Sites change, and old versions stop working.
pub const YT_DLP_VERSION_MIN: [u32; 3] = [2026, 10, 26];

/// Absolute paths of the programs. yt-dlp also looks for ffprobe beside ffmpeg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// yt-dlp, [`YT_DLP_VERSION_MIN`] or newer.
    pub yt_dlp: PathBuf,
    /// ffmpeg.
    pub ffmpeg: PathBuf,
    /// ffprobe.
    pub ffprobe: PathBuf,
}

/// The versions that the programs report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Like `2026.10.26`.
    pub yt_dlp: String,
    /// Like `5.1.9-0+deb12u1`.
    pub ffmpeg: String,
    /// Like ffmpeg's.
    pub ffprobe: String,
}

/// Why a program cannot be used, as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// It cannot be started.
    #[error(
        "cannot run {name} at {path}: {reason}; install it, or give the path of the right file",
        path = path.display()
    )]
    Missing {
        /// The program.
        name: &'static str,
        /// The path that was tried.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// It starts and does not report a version.
    #[error("{path} is not a working {name}: {reason}", path = path.display())]
    Broken {
        /// The program.
        name: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What it does instead.
        reason: String,
    },
    /// It is older than the version that this code was tested with.
    #[error("yt-dlp at {path} is version {found}, but {wanted} or newer is required; update it", path = path.display())]
    TooOld {
        /// Where it is.
        path: PathBuf,
        /// The version that it reports.
        found: String,
        /// The oldest accepted version.
        wanted: String,
    },
}

impl Tools {
    /// Runs each program once to read its version. The worker calls this before its first job.
    ///
    /// # Errors
    /// The first program that is missing, does not work or is too old.
    pub async fn check(&self) -> Result<Versions, ToolError> {
        let yt_dlp = self.ask("yt-dlp", &self.yt_dlp, "--version").await?;
        let numbers = yt_dlp.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>();
        let Some(numbers) = numbers else {
            return Err(ToolError::Broken {
                name: "yt-dlp",
                path: self.yt_dlp.clone(),
                reason: format!("--version prints {yt_dlp:?}"),
            });
        };
        if numbers.as_slice() < YT_DLP_VERSION_MIN.as_slice() {
            let [year, month, day] = YT_DLP_VERSION_MIN;
            let wanted = format!("{year}.{month:02}.{day:02}");
            return Err(ToolError::TooOld { path: self.yt_dlp.clone(), found: yt_dlp, wanted });
        }
        Ok(Versions {
            yt_dlp,
            ffmpeg: self.version_of("ffmpeg", &self.ffmpeg).await?,
            ffprobe: self.version_of("ffprobe", &self.ffprobe).await?,
        })
    }

    /// A command with none of our environment, and with the folder as its home and working directory.
    pub(crate) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(folder);
        // The tools' own folders: a script may be started by an interpreter beside it.
        let beside = [&self.ffmpeg, &self.yt_dlp].map(|tool| tool.parent().map(Path::to_path_buf).unwrap_or_default());
        let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
        // A folder with a colon in its name cannot be in a PATH.
        if let Ok(path) = std::env::join_paths(beside.iter().chain(&system)).or_else(|_| std::env::join_paths(&system))
        {
            command.env("PATH", path);
        }
        command.env("HOME", folder).env("TMPDIR", folder).env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// `ffmpeg version 5.1.9-0+deb12u1 Copyright …`
    async fn version_of(&self, name: &'static str, path: &Path) -> Result<String, ToolError> {
        let told = self.ask(name, path, "-version").await?;
        match told
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(" version "))
            .and_then(|rest| rest.split(' ').next())
        {
            Some(version) => Ok(version.to_owned()),
            None => Err(ToolError::Broken { name, path: path.to_owned(), reason: format!("-version prints {told:?}") }),
        }
    }

    /// The first line that the program prints.
    async fn ask(&self, name: &'static str, path: &Path, flag: &str) -> Result<String, ToolError> {
        let folder = std::env::temp_dir();
        let mut command = self.command(path, &folder);
        command.arg(flag);
        if name == "yt-dlp" {
            command.args(["--ignore-config", "--no-plugin-dirs"]);
        }
        let broken = |reason: String| ToolError::Broken { name, path: path.to_owned(), reason };
        let mut first: Option<String> = None;
        let never = CancellationToken::new();
        let run = process::run(
            command,
            |line| {
                first.get_or_insert_with(|| line.trim().to_owned());
            },
            &never,
        );
        let ended = match tokio::time::timeout(TOOL_VERSION_MAX, run).await {
            Err(_) => return Err(broken(format!("no answer within {} s", TOOL_VERSION_MAX.as_secs()))),
            Ok(Err(RunError::Io(error))) => {
                return Err(ToolError::Missing { name, path: path.to_owned(), reason: error.to_string() });
            }
            Ok(Err(RunError::Canceled)) => unreachable!("nobody else has the token"),
            Ok(Ok(ended)) => ended,
        };
        match first {
            Some(first) if ended.status.success() => Ok(first),
            _ => Err(broken(ended.stderr.last().cloned().unwrap_or_else(|| format!("it ended with {}", ended.status)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn a_tool_sees_nothing_of_our_environment() {
        // Cargo sets it; it stands for the store's credentials in a worker's environment.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let [yt_dlp, ffmpeg, ffprobe] = ["/opt/yt-dlp", "/opt/ff/ffmpeg", "/opt/ff/ffprobe"].map(PathBuf::from);
        let tools = Tools { yt_dlp, ffmpeg, ffprobe };
        let mut seen = BTreeSet::new();
        let command = tools.command(Path::new("/usr/bin/env"), &std::env::temp_dir());
        let take = |line: &str| {
            seen.insert(line.split('=').next().unwrap_or_default().to_owned());
        };
        process::run(command, take, &CancellationToken::new()).await.unwrap();
        let given = ["HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR"];
        assert_eq!(seen, given.map(str::to_owned).into());
    }
}
