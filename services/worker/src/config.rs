//! The settings of a worker.

use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use millrace_domain::retry::Budget;
use millrace_media::{Bounds, Tools};
use millrace_runtime::{
    blobs::{Location, STORAGE},
    config::{Reader, Setting},
};

const SLOTS: Setting = Setting::new("slots", "NUMBER", "2", "How many jobs this worker runs at once.");
const NAME: Setting =
    Setting::optional("name", "NAME", "The worker's name in events and logs; default: host and process id.");
const WORK_DIR: Setting = Setting::new(
    "work-dir",
    "FOLDER",
    ".millrace/work",
    "Folder for running downloads and, up to an hour, parts that retries resume from; cleaned up also after a crash.",
);
const ATTEMPTS_MAX: Setting = Setting::new(
    "attempts-max",
    "NUMBER",
    "5",
    "How often a job is tried when a failure may be temporary: site or store unavailable, or a link expired.",
);
const WORKERS_LOST_MAX: Setting = Setting::new(
    "workers-lost-max",
    "NUMBER",
    "10",
    "How many workers may die or lose contact while they hold the same job; then the job fails.",
);
const FILE_MIB_MAX: Setting =
    Setting::new("file-mib-max", "MIB", "10240", "Largest file that is downloaded; a job for a larger one fails.");
const DURATION_SECONDS_MAX: Setting = Setting::new(
    "duration-seconds-max",
    "SECONDS",
    "43200",
    "Longest video that is downloaded; a job for a longer one fails.",
);
const RETENTION_HOURS: Setting = Setting::new(
    "retention-hours",
    "HOURS",
    "168",
    "How long a job is kept after its end; then its file, state and events are removed. 0: for ever.",
);
const JANITOR_MINUTES: Setting = Setting::new(
    "janitor-minutes",
    "MINUTES",
    "60",
    "How often to search the store for remains of dead workers and remove them. 0: never.",
);
const YT_DLP: Setting = Setting::new("yt-dlp", "PROGRAM", "yt-dlp", "The downloader: a path, or a name on PATH.");
const FFMPEG: Setting = Setting::new("ffmpeg", "PROGRAM", "ffmpeg", "ffmpeg: a path, or a name on PATH.");
const FFPROBE: Setting = Setting::new("ffprobe", "PROGRAM", "ffprobe", "ffprobe: a path, or a name on PATH.");

/// In the order of `--help`.
pub const SETTINGS: &[&Setting] = &[
    &SLOTS,
    &NAME,
    &STORAGE,
    &WORK_DIR,
    &ATTEMPTS_MAX,
    &WORKERS_LOST_MAX,
    &FILE_MIB_MAX,
    &DURATION_SECONDS_MAX,
    &RETENTION_HOURS,
    &JANITOR_MINUTES,
    &YT_DLP,
    &FFMPEG,
    &FFPROBE,
];

/// A worker's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many jobs the worker runs at once.
    pub slots: NonZeroU16,
    /// The worker's name in `started` events.
    pub name: String,
    /// Where downloaded files are stored.
    pub storage: Location,
    /// The work folder, for running downloads.
    pub work_dir: PathBuf,
    /// The budget of attempts and lost workers per job.
    pub budget: Budget,
    /// Bounds of a video.
    pub bounds: Bounds,
    /// How long a job is kept after its end; `None` for ever.
    pub retention: Option<Duration>,
    /// Interval of the janitor's searches; `None` for never.
    pub janitor_interval: Option<Duration>,
    /// The programs, as configured.
    pub tools: Programs,
}

/// Programs by path or name.
#[derive(Clone, Debug)]
pub struct Programs {
    yt_dlp: PathBuf,
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
}

/// Reads the configuration.
pub fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let slots = reader.value(&SLOTS);
    let name = reader.optional(&NAME);
    let storage = reader.value(&STORAGE);
    let work_dir = reader.value(&WORK_DIR);
    let attempts_max = reader.value::<NonZeroU32>(&ATTEMPTS_MAX);
    let workers_lost_max = reader.value::<NonZeroU32>(&WORKERS_LOST_MAX);
    let file_mib_max = reader.value::<NonZeroU64>(&FILE_MIB_MAX);
    let duration_seconds_max = reader.value::<NonZeroU64>(&DURATION_SECONDS_MAX);
    let retention = reader.parsed(&RETENTION_HOURS, hours);
    let janitor_interval = reader.parsed(&JANITOR_MINUTES, minutes);
    let (yt_dlp, ffmpeg, ffprobe) = (reader.value(&YT_DLP), reader.value(&FFMPEG), reader.value(&FFPROBE));
    Some(Config {
        slots: slots?,
        name: name?.unwrap_or_else(own_name),
        storage: storage?,
        work_dir: work_dir?,
        budget: Budget { attempts_max: attempts_max?.get(), workers_lost_max: workers_lost_max?.get() },
        bounds: Bounds {
            bytes_max: file_mib_max?.get().saturating_mul(1024 * 1024),
            duration_max: Duration::from_secs(duration_seconds_max?.get()),
        },
        retention: retention?,
        janitor_interval: janitor_interval?,
        tools: Programs { yt_dlp: yt_dlp?, ffmpeg: ffmpeg?, ffprobe: ffprobe? },
    })
}

fn hours(text: &str) -> Result<Option<Duration>, String> {
    const WORDS: &str = "give a number of hours, a century (876000) at most; 0 means for ever";
    span(text, 3600.0, 876_000.0).ok_or_else(|| WORDS.to_owned())
}

fn minutes(text: &str) -> Result<Option<Duration>, String> {
    span(text, 60.0, 525_600.0)
        .ok_or_else(|| "give a number of minutes, a year (525600) at most; 0 means never".to_owned())
}

/// `text` times `unit_s` seconds; `Some(None)` for 0.
fn span(text: &str, unit_s: f64, max: f64) -> Option<Option<Duration>> {
    match text.parse::<f64>() {
        Ok(0.0) => Some(None),
        Ok(count) if (0.0..=max).contains(&count) => Some(Some(Duration::from_secs_f64(count * unit_s))),
        _ => None,
    }
}

fn own_name() -> String {
    let host = rustix::system::uname();
    format!("{}-{}", host.nodename().to_string_lossy(), std::process::id())
}

impl Programs {
    /// Finds the programs; a name without a slash is searched for on PATH.
    ///
    /// # Errors
    /// A program is missing or not executable.
    pub fn resolve(&self) -> anyhow::Result<Tools> {
        Ok(Tools {
            yt_dlp: find(&self.yt_dlp, &YT_DLP)?,
            ffmpeg: find(&self.ffmpeg, &FFMPEG)?,
            ffprobe: find(&self.ffprobe, &FFPROBE)?,
        })
    }
}

fn find(program: &Path, setting: &Setting) -> anyhow::Result<PathBuf> {
    which::which(program).with_context(|| {
        let (name, flag) = (program.display(), setting.flag);
        format!("cannot find an executable {name}; install it, or set its path with --{flag}")
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_program_is_found_by_path_only_if_it_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("yt-dlp");
        let error = || format!("{:#}", find(&program, &YT_DLP).unwrap_err());
        assert!(error().contains(program.to_str().unwrap()) && error().contains("--yt-dlp"), "{}", error());
        fs::write(&program, "#!/bin/sh\n").unwrap();
        assert!(find(&program, &YT_DLP).is_err());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&program, &YT_DLP).unwrap(), program);
    }

    #[test]
    fn a_name_is_found_on_path() {
        assert!(find(Path::new("sh"), &FFMPEG).unwrap().is_absolute());
    }
}
