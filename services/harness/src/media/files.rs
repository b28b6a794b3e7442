//! The media files: made by ffmpeg, and kept for the next run.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::command::run;

const LIMIT: Duration = Duration::from_secs(300);
const FPS: u32 = 25;
const HLS_SEGMENT_S: u32 = 2;
const AUDIO_BITS_PER_S: u64 = 128_000;

/// Part of a folder's name. Change it when the same [`MediaSpec`] makes different files.
const RECIPE: &str = "1";

/// The media to make. The default suits the end-to-end tests: 20 MB in about a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSpec {
    /// The approximate size of the mp4; the result is within a quarter of it.
    pub video_bytes: u64,
    /// The duration of the mp4, in seconds.
    pub duration_s: u32,
    /// The height of the mp4 in pixels; even.
    pub height: u32,
    /// The heights of the HLS renditions in pixels; even.
    pub hls_heights: Vec<u32>,
    /// The duration of the HLS renditions, in seconds.
    pub hls_duration_s: u32,
}

impl Default for MediaSpec {
    fn default() -> Self {
        Self {
            video_bytes: 20_000_000,
            duration_s: 20,
            height: 360,
            hls_heights: vec![240, 480, 720],
            hls_duration_s: 8,
        }
    }
}

/// A folder of media: `video.mp4` (H.264 and AAC), `thumb.jpg` and `hls/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFiles {
    folder: PathBuf,
}

impl MediaFiles {
    /// Makes the files in a folder inside `dir` that is named by `spec`, all or nothing, unless they already exist.
    ///
    /// Blocks, for seconds at most. Safe to call from several threads or processes at once.
    pub fn make(dir: &Path, ffmpeg: &Path, spec: &MediaSpec) -> anyhow::Result<Self> {
        let heights = spec.hls_heights.iter().chain([&spec.height]);
        if spec.duration_s == 0
            || spec.hls_duration_s == 0
            || spec.hls_heights.is_empty()
            || heights.into_iter().any(|h| *h < 2 || h % 2 == 1)
        {
            bail!(
                "cannot make media of {spec:?}: durations must be above 0 and heights even, with at least one HLS \
                height"
            );
        }
        let name = &HEXLOWER.encode(&Sha256::digest(format!("{RECIPE} {spec:?}")))[..12];
        let folder = dir.join(format!("media-{name}"));
        if folder.is_dir() {
            return Ok(Self { folder });
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let temporary =
            tempfile::Builder::new().prefix("tmp-").tempdir_in(dir).context("cannot make a folder for media")?;
        let made = temporary.path().join("made");
        std::fs::create_dir_all(made.join("hls"))?;
        make_video(&made, ffmpeg, spec)?;
        make_thumb(&made, ffmpeg)?;
        make_hls(&made.join("hls"), ffmpeg, spec)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o755))?;
        match std::fs::rename(&made, &folder) {
            Err(_) if folder.is_dir() => {} // another process has made the same files
            renamed => renamed.with_context(|| format!("cannot put {} in place", folder.display()))?,
        }
        Ok(Self { folder })
    }

    /// The mp4.
    pub fn video(&self) -> PathBuf {
        self.folder.join("video.mp4")
    }

    /// A picture of the video.
    pub fn thumb(&self) -> PathBuf {
        self.folder.join("thumb.jpg")
    }

    /// The folder of `master.m3u8`, with a folder for each rendition.
    pub fn hls(&self) -> PathBuf {
        self.folder.join("hls")
    }
}

fn ffmpeg_command(ffmpeg: &Path, dir: &Path) -> Command {
    let mut command = Command::new(ffmpeg);
    command.current_dir(dir).args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    command
}

/// Picture and sound, generated.
fn input(command: &mut Command, height: u32, duration_s: u32) {
    let width = height * 16 / 9 / 2 * 2;
    command.args(["-f", "lavfi", "-i", &format!("testsrc2=size={width}x{height}:rate={FPS}:duration={duration_s}")]);
    command.args(["-f", "lavfi", "-i", &format!("sine=frequency=440:duration={duration_s}")]);
}

fn make_video(dir: &Path, ffmpeg: &Path, spec: &MediaSpec) -> anyhow::Result<()> {
    let mut command = ffmpeg_command(ffmpeg, dir);
    input(&mut command, spec.height, spec.duration_s);
    let bits_per_s =
        (spec.video_bytes * 8 / u64::from(spec.duration_s)).saturating_sub(AUDIO_BITS_PER_S).max(50_000).to_string();
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", &(FPS * 2).to_string()]);
    // A constant rate, filled up where the picture needs less: the size is known, and the encoder has little work.
    for option in ["-b:v", "-minrate", "-maxrate", "-bufsize"] {
        command.args([option, &bits_per_s]);
    }
    command.args(["-x264-params", "nal-hrd=cbr", "-c:a", "aac", "-b:a", &AUDIO_BITS_PER_S.to_string()]);
    command.args(["-movflags", "+faststart", "video.mp4"]);
    run(&mut command, "make a sample video", LIMIT)?;
    let size = dir.join("video.mp4").metadata()?.len();
    if size.abs_diff(spec.video_bytes) > spec.video_bytes / 4 {
        bail!(
            "the sample video has {size} bytes instead of about {}; choose another height or duration",
            spec.video_bytes
        );
    }
    Ok(())
}

fn make_thumb(dir: &Path, ffmpeg: &Path) -> anyhow::Result<()> {
    let mut command = ffmpeg_command(ffmpeg, dir);
    command.args(["-i", "video.mp4", "-frames:v", "1", "-vf", "scale=320:-2", "-q:v", "4", "thumb.jpg"]);
    run(&mut command, "make a sample picture", LIMIT).map(drop)
}

fn make_hls(dir: &Path, ffmpeg: &Path, spec: &MediaSpec) -> anyhow::Result<()> {
    let heights = &spec.hls_heights;
    let mut command = ffmpeg_command(ffmpeg, dir);
    input(&mut command, heights.iter().copied().max().unwrap_or(2), spec.hls_duration_s);
    let mut filter = format!("[0:v]split={}", heights.len());
    filter.extend((0..heights.len()).map(|n| format!("[in{n}]")));
    filter.extend(heights.iter().enumerate().map(|(n, height)| format!(";[in{n}]scale=-2:{height}[out{n}]")));
    command.args(["-filter_complex", &filter]);
    let mut streams = Vec::new();
    for (n, height) in heights.iter().enumerate() {
        command.args(["-map", &format!("[out{n}]"), "-map", "1:a"]);
        command.args([&format!("-b:v:{n}"), &format!("{}", u64::from(*height) * 2_000)]);
        streams.push(format!("v:{n},a:{n},name:{height}p"));
    }
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k"]);
    command.args(["-g", &(FPS * HLS_SEGMENT_S).to_string(), "-sc_threshold", "0"]);
    command.args(["-f", "hls", "-hls_time", &HLS_SEGMENT_S.to_string(), "-hls_playlist_type", "vod"]);
    command.args(["-hls_segment_filename", "%v/%d.ts", "-master_pl_name", "master.m3u8"]);
    command.args(["-var_stream_map", &streams.join(" "), "%v/index.m3u8"]);
    run(&mut command, "make a sample HLS stream", LIMIT).map(drop)
}
