//! Examines a downloaded file with ffprobe.

use std::path::Path;

use millrace_domain::{event::VideoInfo, failure::FailureKind, limits::TOOL_PROBE_MAX};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{MediaError, Reason},
    info::{quality, whole},
    process,
    tools::Tools,
};

/// The needed parts of ffprobe's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) has_video: bool,
    /// ffprobe's names of the format, separated by commas.
    pub(crate) container: String,
    /// Duration and quality only.
    pub(crate) info: VideoInfo,
}

/// Examines the file `name` in the folder. A file with neither picture nor sound is [`FailureKind::NotMedia`].
pub(crate) async fn probe(
    tools: &Tools,
    folder: &Path,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Probed, MediaError> {
    let mut command = tools.command(&tools.ffprobe, folder);
    command.args(["-v", "error", "-print_format", "json=compact=1"]);
    // A file may be a playlist in disguise: ffprobe must not fetch what it names.
    command.args(["-protocol_whitelist", "file"]);
    command.args([
        "-show_entries",
        "format=format_name,duration:stream=codec_type,width,height:stream_disposition=attached_pic",
    ]);
    command.arg("-i").arg(format!("file:{name}"));
    let mut answer = String::new();
    let run = process::run(command, |line| answer.push_str(line), cancel);
    let Ok(ended) = tokio::time::timeout(TOOL_PROBE_MAX, run).await else {
        return Err(Reason::new(FailureKind::WorkerFailed, "ffprobe timed out").into());
    };
    let ended = ended?;
    let told = ended.stderr.last().map_or("ffprobe sees neither picture nor sound", String::as_str);
    match parse(&answer) {
        Some(probed) if ended.status.success() => Ok(probed),
        _ if ended.status.code().is_none() => Err(Reason::new(FailureKind::WorkerFailed, "ffprobe was killed").into()),
        _ => Err(Reason::new(FailureKind::NotMedia, told).into()),
    }
}

/// Parses ffprobe's report; `None` if the file is neither video nor sound.
fn parse(answer: &str) -> Option<Probed> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let format = answer.get("format")?;
    let container = format.get("format_name")?.as_str()?;
    // A still picture, text rendered as a picture, or a list of other files.
    if container.ends_with("_pipe") || ["image2", "tty", "hls", "dash", "concat"].contains(&container) {
        return None;
    }
    let streams = answer.get("streams")?.as_array()?;
    let of_type = |kind: &'static str| {
        streams.iter().filter(move |stream| stream.get("codec_type").and_then(Value::as_str) == Some(kind))
    };
    let is_cover = |stream: &&Value| stream.pointer("/disposition/attached_pic").and_then(Value::as_u64) == Some(1);
    let video = of_type("video").find(|stream| !is_cover(stream));
    if video.is_none() && of_type("audio").next().is_none() {
        return None;
    }
    let side = |name| video?.get(name)?.as_u64();
    let duration = format.get("duration").and_then(Value::as_str).and_then(|text| whole(text.parse().ok()?));
    let info = VideoInfo { duration, quality: quality(side("width"), side("height")), ..VideoInfo::default() };
    Some(Probed { has_video: video.is_some(), container: container.to_owned(), info })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_tells_its_duration_and_quality() {
        let probed = parse(
            r#"{"programs": [], "streams": [
                {"codec_type": "video", "width": 1280, "height": 720, "disposition": {"attached_pic": 0}},
                {"codec_type": "audio", "disposition": {"attached_pic": 0}}],
                "format": {"format_name": "mov,mp4,m4a,3gp,3g2,mj2", "duration": "19.700000"}}"#,
        )
        .unwrap();
        assert!(probed.has_video);
        assert_eq!((probed.info.duration, probed.info.quality.as_deref()), (Some(20), Some("720p")));
    }

    #[test]
    fn a_cover_is_no_video() {
        let probed = parse(
            r#"{"streams": [
                {"codec_type": "audio"},
                {"codec_type": "video", "width": 9, "height": 9, "disposition": {"attached_pic": 1}}],
                "format": {"format_name": "mp3", "duration": "N/A"}}"#,
        )
        .unwrap();
        assert_eq!((probed.has_video, probed.info), (false, VideoInfo::default()));
    }

    #[test]
    fn pictures_letters_and_nothing_are_not_media() {
        for answer in [
            "{\n\n}",
            "",
            r#"{"streams": [{"codec_type": "video", "width": 9, "height": 9}], "format": {"format_name": "png_pipe"}}"#,
            r#"{"streams": [{"codec_type": "video", "width": 9, "height": 9}],
                "format": {"format_name": "tty", "duration": "1.0"}}"#,
            r#"{"streams": [{"codec_type": "subtitle"}], "format": {"format_name": "srt"}}"#,
            r#"{"streams": [], "format": {"format_name": "mp3"}}"#,
        ] {
            assert_eq!(parse(answer), None, "{answer}");
        }
    }
}
