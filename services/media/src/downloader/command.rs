//! The downloader's command line.

use millrace_domain::{
    limits::{PROGRESS_INTERVAL_MIN, TOOL_RETRIES_MAX, TOOL_SOCKET_SILENCE_MAX},
    submission::Quality,
};
use tokio::process::Command;

use crate::{request::Request, tools::Tools};

/// The flags that every job has. Each must be spelled out as in the pinned version's `options.py`: yt-dlp takes a
/// prefix of a known flag for that flag.
const FLAGS: &[&str] = &[
    // Use nothing from the machine: no configuration, plug-ins, cache, cookies or scripts.
    "--ignore-config",
    "--no-plugin-dirs",
    "--no-cache-dir",
    "--no-cookies-from-browser",
    "--no-exec",
    "--no-remote-components",
    "--no-js-runtimes",
    // One video, even if the address names more. A page with several counts as a list, which `--no-playlist` does not
    // prevent.
    "--no-playlist",
    "--playlist-items",
    "1",
    // A stream with a missing fragment is a failure.
    "--abort-on-unavailable-fragments",
    "--restrict-filenames",
    "--no-mtime",
    "--color",
    "never",
    "--newline",
    "--quiet",
    "--no-warnings",
    "--no-simulate",
    "--progress",
    // Read by `traffic`.
    "--print-traffic",
    // Read by `protocol`. yt-dlp omits null fields from objects, and empty objects from lists. Each template begins
    // with a line feed: the traffic has a buffer of its own, and may end in the middle of a line.
    "--progress-template",
    concat!(
        "download:\nP %(progress.{status,downloaded_bytes,total_bytes,total_bytes_estimate,",
        "fragment_index,fragment_count,speed})j"
    ),
    "--print",
    "pre_process:\nL %(.{live_status,duration})j",
    "--print",
    "video:\nI %(.{id,title,thumbnail,duration,height,width,extractor_key})j",
    "--print",
    "video:\nS %(.{url,format_id,protocol})j",
    // The last one before the download: `traffic` relies on that.
    "--print",
    "video:\nF %(requested_formats.:.{format_id,filesize,filesize_approx,tbr})j",
    "--print",
    "after_move:\nD %(.{filepath})j",
    // Relative to the working directory: in an absolute path, yt-dlp would expand `%` and `$`.
    "--output",
    "media.%(ext)s",
];

/// The downloader, ready to run in the request's folder.
pub(crate) fn yt_dlp(tools: &Tools, request: &Request<'_>) -> Command {
    let mut command = tools.command(&tools.yt_dlp, request.folder);
    command.args(FLAGS);
    command.arg("--progress-delta").arg(PROGRESS_INTERVAL_MIN.as_secs_f64().to_string());
    command.arg("--socket-timeout").arg(TOOL_SOCKET_SILENCE_MAX.as_secs().to_string());
    // yt-dlp applies the filter before the download. A filtered video is no error for it: it exits with 0 and no file.
    // Several filters would be combined with "or".
    let seconds_max = request.bounds.duration_max.as_secs();
    command.arg("--match-filters").arg(format!("!is_live & duration <=? {seconds_max}"));
    for retries in ["--retries", "--fragment-retries", "--extractor-retries", "--file-access-retries"] {
        command.arg(retries).arg(TOOL_RETRIES_MAX.to_string());
    }
    for kind in ["http", "fragment", "extractor"] {
        command.arg("--retry-sleep").arg(format!("{kind}:exp=0.5:4"));
    }
    command.arg("--format-sort").arg(format_sort(request.quality));
    command.arg("--ffmpeg-location").arg(&tools.ffmpeg);
    if let Some(proxy) = request.proxy {
        command.arg("--proxy").arg(proxy);
    }
    command.arg("--").arg(request.url.as_str());
    command
}

/// The order of preference among a video's formats.
///
/// `res` is the smaller side of the picture, so that a portrait video has its common name. `res:480` prefers the
/// greatest up to 480, and takes the smallest above it only if there is none; a format of unknown size is still
/// accepted. Visible and audible quality come before the container, and a container that every browser plays before the
/// others.
fn format_sort(quality: Option<Quality>) -> String {
    const REST: &str = "fps,hdr:12,ext:mp4:m4a";
    match quality {
        Some(quality) => format!("res:{},lang,quality,{REST}", quality.height()),
        None => format!("lang,quality,res,{REST}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::request::Bounds;

    fn arguments(url: &str, quality: Option<&str>, proxy: Option<&str>) -> Vec<String> {
        let [yt_dlp, ffmpeg, ffprobe] = ["/opt/yt-dlp", "/opt/ff/ffmpeg", "/opt/ff/ffprobe"].map(PathBuf::from);
        let tools = Tools { yt_dlp, ffmpeg, ffprobe };
        let url = url.parse().unwrap();
        let quality = quality.map(|quality| quality.parse().unwrap());
        let command = super::yt_dlp(&tools, &{
            let bounds = Bounds::default();
            Request { url: &url, quality, folder: Path::new("/tmp/a%b"), proxy, bounds }
        });
        command.as_std().get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect()
    }

    fn value<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
        let at = arguments.iter().position(|argument| argument == flag)?;
        Some(&arguments[at + 1])
    }

    #[test]
    fn the_address_comes_last_and_cannot_be_a_flag() {
        let arguments = arguments("http://e.org/--exec", None, None);
        assert_eq!(arguments[arguments.len() - 2..], ["--", "http://e.org/--exec"]);
        assert!(!arguments.iter().any(|argument| argument.contains("/tmp/a%b")));
        assert_eq!(value(&arguments, "--proxy"), None);
    }

    #[test]
    fn a_wished_quality_decides_before_all_else() {
        let with = arguments("http://e.org/", Some("480p"), Some("http://127.0.0.1:9"));
        assert!(value(&with, "--format-sort").unwrap().starts_with("res:480,"));
        assert_eq!(value(&with, "--proxy"), Some("http://127.0.0.1:9"));
        assert!(
            value(&arguments("http://e.org/", None, None), "--format-sort").unwrap().starts_with("lang,quality,res,")
        );
    }
}
