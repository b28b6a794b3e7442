//! Parses the downloader's output lines: a letter, a space and JSON. The templates are in `command`.

use millrace_domain::event::VideoInfo;
use serde_json::Value;

use crate::{
    info::{quality, whole},
    part::Source,
};

/// One line of the downloader.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// Whether the video is a live stream, and its seconds if known. The first line, and the only one for a video that
    /// is filtered out.
    Found { live: bool, duration: Option<u64> },
    /// The information on the video.
    Info(VideoInfo),
    /// The file that will be downloaded; `None` unless it is a single file over plain HTTP.
    Chosen(Option<Source>),
    /// The size of each file that will be downloaded, in order; empty if there is only one.
    Files(Vec<FileSize>),
    /// The progress of the current file.
    Progress(FileProgress),
    /// The path of the complete file.
    Done(String),
}

/// A file's size, as far as it is known before its download.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct FileSize {
    pub(crate) bytes: Option<u64>,
    /// Bits per second, on average.
    pub(crate) bit_rate: Option<u64>,
}

/// The progress of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct FileProgress {
    pub(crate) finished: bool,
    pub(crate) downloaded_bytes: u64,
    /// As reported by the server.
    pub(crate) total_bytes: Option<u64>,
    /// As estimated by the downloader from the fragments so far.
    pub(crate) estimated_bytes: Option<u64>,
    /// Fragments that are complete.
    pub(crate) fragments: Option<u64>,
    pub(crate) fragments_total: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
}

/// Parses a line; `None` if it does not come from our templates.
pub(crate) fn parse(line: &str) -> Option<Line> {
    let (tag, json) = line.split_once(' ')?;
    if !matches!(tag, "L" | "I" | "S" | "F" | "P" | "D") {
        return None;
    }
    let value: Value = serde_json::from_str(json).ok()?;
    Some(match tag {
        "L" => {
            let status = value.as_object()?.get("live_status").and_then(text).unwrap_or_default();
            Line::Found { live: ["is_live", "is_upcoming"].contains(&&*status), duration: number(&value, "duration") }
        }
        "I" => Line::Info(info(&value)?),
        "S" => Line::Chosen(source(&value)),
        "F" => Line::Files(value.as_array()?.iter().map(file_size).collect()),
        "P" => Line::Progress(progress(&value)?),
        _ => Line::Done(text(value.get("filepath")?)?),
    })
}

fn info(value: &Value) -> Option<VideoInfo> {
    let fields = value.as_object()?;
    let text = |name: &str| fields.get(name).and_then(text).filter(|text| !text.is_empty());
    let info = VideoInfo {
        id: text("id"),
        title: text("title").map(|title| plain_title(title, text("extractor_key").as_deref())),
        thumbnail: text("thumbnail"),
        duration: number(value, "duration"),
        quality: quality(number(value, "width"), number(value, "height")),
    };
    Some(info.bounded())
}

/// The title without the number that the downloader gives to each video of a page, `A page (1)`, even to a single one.
fn plain_title(mut title: String, extractor: Option<&str>) -> String {
    let numbered = title.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    if extractor == Some("HTML5MediaEmbed")
        && let Some((plain, number)) = numbered
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !plain.is_empty()
    {
        title.truncate(plain.len());
    }
    title
}

fn source(value: &Value) -> Option<Source> {
    let fields = value.as_object()?;
    matches!(fields.get("protocol")?.as_str()?, "http" | "https").then_some(())?;
    let address = fields.get("url")?.as_str()?.split(['?', '#']).next()?.to_owned();
    Some(Source { address, format: fields.get("format_id").and_then(text).unwrap_or_default() })
}

fn file_size(value: &Value) -> FileSize {
    FileSize {
        bytes: number(value, "filesize").or_else(|| number(value, "filesize_approx")),
        bit_rate: number(value, "tbr").map(|kilobits| kilobits.saturating_mul(1000)),
    }
}

fn progress(value: &Value) -> Option<FileProgress> {
    let finished = match value.get("status")?.as_str()? {
        "downloading" => false,
        "finished" => true,
        _ => return None,
    };
    Some(FileProgress {
        finished,
        downloaded_bytes: number(value, "downloaded_bytes")?,
        total_bytes: number(value, "total_bytes"),
        estimated_bytes: number(value, "total_bytes_estimate"),
        fragments: number(value, "fragment_index"),
        fragments_total: number(value, "fragment_count"),
        bytes_per_second: number(value, "speed"),
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A number, rounded; `None` if it is no valid count.
fn number(value: &Value, name: &str) -> Option<u64> {
    whole(value.get(name)?.as_f64()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_direct_download_are_understood() {
        assert_eq!(
            parse(r#"I {"id": "video", "title": "video", "ext": "mp4", "extractor_key": "Generic"}"#),
            Some(Line::Info(VideoInfo {
                id: Some("video".into()),
                title: Some("video".into()),
                ..VideoInfo::default()
            }))
        );
        assert_eq!(
            parse(r#"S {"url": "http://e.org/video.mp4?signed=x#t", "format_id": "mp4", "protocol": "http"}"#),
            Some(Line::Chosen(Some(Source { address: "http://e.org/video.mp4".into(), format: "mp4".into() })))
        );
        assert_eq!(parse("F []"), Some(Line::Files(vec![])));
        assert_eq!(
            parse(concat!(
                r#"P {"status": "downloading", "downloaded_bytes": 2096128, "total_bytes": 5253854, "#,
                r#""speed": 2934907.7962822756, "eta": 1}"#
            )),
            Some(Line::Progress(FileProgress {
                downloaded_bytes: 2_096_128,
                total_bytes: Some(5_253_854),
                bytes_per_second: Some(2_934_908),
                ..FileProgress::default()
            }))
        );
        assert_eq!(parse(r#"D {"filepath": "media.mp4", "ext": "mp4"}"#), Some(Line::Done("media.mp4".into())));
    }

    #[test]
    fn a_stream_and_two_files_are_not_one_file() {
        for line in [
            r#"S {"url": "http://e.org/index.m3u8", "format_id": "480", "protocol": "m3u8_native"}"#,
            r#"S {"format_id": "137+140", "protocol": "https+https"}"#,
            r#"S {"format_id": "137", "protocol": "https"}"#,
            "S {}",
        ] {
            assert_eq!(parse(line), Some(Line::Chosen(None)), "{line}");
        }
    }

    #[test]
    fn the_title_of_a_page_is_told_without_a_number() {
        for (line, expected) in [
            (r#"I {"title": "A page (1)", "extractor_key": "HTML5MediaEmbed"}"#, "A page"),
            (r#"I {"title": "Part (one)", "extractor_key": "HTML5MediaEmbed"}"#, "Part (one)"),
            (r#"I {"title": "Part (1)", "extractor_key": "Generic"}"#, "Part (1)"),
        ] {
            assert!(matches!(parse(line), Some(Line::Info(info)) if info.title.as_deref() == Some(expected)), "{line}");
        }
    }

    #[test]
    fn the_lines_of_a_stream_are_understood() {
        let Some(Line::Info(info)) = parse(concat!(
            r#"I {"id": "master", "title": "master", "thumbnail": "https://e.org/t.jpg", "duration": 19.6, "#,
            r#""height": 480, "width": 854}"#
        )) else {
            panic!()
        };
        assert_eq!((info.duration, info.quality.as_deref()), (Some(20), Some("480p")));
        assert_eq!(
            parse(r#"F [{"format_id": "3000", "tbr": 3000.0}, {"filesize_approx": 219208}]"#),
            Some(Line::Files(vec![
                FileSize { bytes: None, bit_rate: Some(3_000_000) },
                FileSize { bytes: Some(219_208), bit_rate: None },
            ]))
        );
        assert_eq!(
            parse(concat!(
                r#"P {"status": "downloading", "downloaded_bytes": 1628916, "#,
                r#""total_bytes_estimate": 8201813.333333334, "#,
                r#""fragment_index": 2, "fragment_count": 10, "speed": 0}"#
            )),
            Some(Line::Progress(FileProgress {
                downloaded_bytes: 1_628_916,
                estimated_bytes: Some(8_201_813),
                fragments: Some(2),
                fragments_total: Some(10),
                bytes_per_second: Some(0),
                ..FileProgress::default()
            }))
        );
        for (line, live, duration) in [
            (r#"L {"live_status": "is_live"}"#, true, None),
            (r#"L {"live_status": "was_live", "duration": 19.6}"#, false, Some(20)),
            ("L {}", false, None),
        ] {
            assert_eq!(parse(line), Some(Line::Found { live, duration }), "{line}");
        }
    }

    #[test]
    fn anything_else_is_no_line_of_ours() {
        for line in [
            "",
            "P",
            "I ",
            "I {",
            "I []",
            "I null",
            "L []",
            "F NA",
            "P {}",
            r#"P {"status": "error", "downloaded_bytes": 1}"#,
            r#"P {"status": "downloading", "downloaded_bytes": -1}"#,
            r#"P {"status": "downloading", "downloaded_bytes": 1e300}"#,
            r#"D {"filepath": null}"#,
            r#"X {"filepath": "media.mp4"}"#,
            "Deleting original file media.f137.mp4",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
