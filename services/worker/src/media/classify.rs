//! What the downloader's error output means. It has no codes: the text is all there is.

use millrace_domain::{
    failure::FailureKind,
    limits::{ERROR_CHARS_MAX, cut},
};

/// Why a download failed: the kind, and the downloader's own words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What clients are told.
    pub kind: FailureKind,
    /// What the log is told; made of text that the source may have written.
    pub detail: String,
}

impl Reason {
    pub(super) fn new(kind: FailureKind, detail: &str) -> Self {
        Self { kind, detail: cut(detail, ERROR_CHARS_MAX) }
    }
}

/// Texts and what they mean, in lower case. The first match of the table decides, whichever error line it is in.
const TABLE: &[(FailureKind, &[&str])] = &[
    (
        FailureKind::WorkerFailed,
        &[
            "no space left on device",
            "[errno 28]",
            "disk quota exceeded",
            "unable to open for writing",
            "unable to create directory",
            "ffmpeg is not installed",
            "ffmpeg not found",
            "ffprobe not found",
            "ffprobe and ffmpeg not found",
            "[errno 12]", // out of memory
            "[errno 24]", // too many open files
            "no such option",
        ],
    ),
    (
        FailureKind::SourceRateLimited,
        &["http error 429", "too many requests", "rate-limited", "rate limit", "not a bot"],
    ),
    (
        FailureKind::LiveStream,
        &[
            "live event will begin",
            "premieres in",
            "premiere will begin",
            "live event has not started",
            "event has not started",
            "live stream has not",
        ],
    ),
    (
        FailureKind::SourceBroken,
        &[
            "more expected", // a response was cut off
            "content too short",
            "not found, unable to continue", // a fragment
            "did not get any data blocks",
            "the downloaded file is empty",
            "giving up after 0 retries",
        ],
    ),
    (
        FailureKind::SourceForbidden,
        &[
            "http error 401",
            "http error 402",
            "http error 403",
            "http error 407",
            "http error 451",
            "geo restriction",
            "geo-restrict",
            "geoblock",
            "geo-block",
            "in your country",
            "in your region",
            "in your area",
            "from your location",
            "at your territory",
            "private video",
            "video is private",
            "videos are private",
            "is now private",
            "set to private",
            "log in",
            "login",
            "logged in",
            "sign in",
            "registered users",
            "password",
            "use --cookies",
            "members only",
            "members-only",
            "for members",
            "available to members",
            "premium members",
            "subscribers",
            "age-restricted",
            "confirm your age",
            "drm",
            "paywall",
        ],
    ),
    (
        FailureKind::SourceNotFound,
        &[
            "http error 404",
            "http error 410",
            "removed",
            "deleted",
            "no longer available",
            "does not exist",
            "has expired",
            "video unavailable",
            "video is unavailable",
            "content unavailable",
            "content is unavailable",
            "is not available",
            "currently unavailable",
            "not currently live",
        ],
    ),
    (
        FailureKind::SourceUnavailable,
        &[
            "http error",  // all that are not above
            "[errno 101]", // network unreachable
            "[errno 104]", // reset
            "[errno 110]", // timed out
            "[errno 111]", // refused
            "[errno 113]", // no route
            "[errno -2]",  // no such name
            "[errno -3]",  // no answer from the name server
            "[errno -5]",  // the name has no address
            "name or service not known",
            "name resolution",
            "connection reset",
            "connection refused",
            "connection aborted",
            "network is unreachable",
            "remote end closed connection",
            "timed out",
            "timeout",
            "proxy",
            "ssl:",
            "sslerror",
            "certificate",
            "temporarily unavailable",
            "transporterror",
        ],
    ),
    (
        FailureKind::Unsupported,
        &[
            "no video formats found",
            "requested format is not available",
            "no suitable extractor",
            "is not a valid url",
            "there's no video",
            "no video in",
            "no media found",
            "no video could be found",
        ],
    ),
];

/// Says what the last lines of the downloader's error output mean. `begun` is whether bytes of the file had arrived.
pub(super) fn classify(stderr: &[String], begun: bool) -> Reason {
    let mut errors: Vec<&str> = stderr.iter().filter_map(|line| line.strip_prefix("ERROR: ")).map(str::trim).collect();
    let Some(last) = errors.last().copied().or_else(|| stderr.last().map(String::as_str)) else {
        return Reason::new(FailureKind::DownloadFailed, "the downloader failed without a word");
    };
    if errors.is_empty() {
        // Not its own words: it crashed, or was never started.
        errors = stderr.iter().map(String::as_str).collect();
        let kind = kind_of_any(&errors).filter(|kind| *kind == FailureKind::WorkerFailed);
        let crashed =
            errors.iter().any(|line| line.starts_with("Traceback (most recent call last)") || line.contains("error: "));
        let kind = kind.or(crashed.then_some(FailureKind::WorkerFailed)).unwrap_or(FailureKind::DownloadFailed);
        return Reason::new(kind, last);
    }
    let kind = kind_of_any(&errors).unwrap_or(FailureKind::DownloadFailed);
    // A site that fails in the middle of a file has handed out the first half: an address that went stale, a broken network.
    let network =
        [FailureKind::SourceUnavailable, FailureKind::SourceForbidden, FailureKind::SourceNotFound].contains(&kind);
    let kind = if begun && network { FailureKind::SourceBroken } else { kind };
    let told = last.split_once("; please report this issue").map_or(last, |(told, _)| told);
    Reason::new(kind, told)
}

fn kind_of_any(errors: &[&str]) -> Option<FailureKind> {
    let messages: Vec<String> = errors.iter().map(|error| message(error).to_ascii_lowercase()).collect();
    if messages.iter().any(|message| message.starts_with("unsupported url:")) {
        // The rest of the line is the address, which may say anything.
        return Some(FailureKind::Unsupported);
    }
    if messages.iter().any(|message| cut_off(message)) {
        return Some(FailureKind::SourceBroken);
    }
    let told = |texts: &[&str]| {
        messages.iter().any(|message| texts.iter().any(|text| without_addresses(message).contains(text)))
    };
    TABLE.iter().find(|(_, texts)| told(texts)).map(|(kind, _)| *kind)
}

/// The error without `[extractor] id: `, since the id is part of the address.
fn message(error: &str) -> &str {
    match error.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some(("download", told)) => told,
        Some((_, rest)) => rest.split_once(": ").map_or(rest, |(_, told)| told),
        None => error,
    }
}

fn without_addresses(message: &str) -> String {
    let words = message.split(' ').filter(|word| !word.contains("://"));
    words.collect::<Vec<_>>().join(" ")
}

/// `Got error: Downloaded 1000000 bytes, expected 5253854 bytes. Giving up after 2 retries`
fn cut_off(message: &str) -> bool {
    message.contains("downloaded ") && message.contains(" bytes, expected ")
}

#[cfg(test)]
mod tests {
    use FailureKind::*;

    use super::*;

    fn kind(lines: &[&str], begun: bool) -> FailureKind {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        classify(&lines, begun).kind
    }

    /// Each line was written by yt-dlp 2026.10.26 against a local server, or stands in its source.
    #[test]
    fn messages_before_the_download_have_their_kind() {
        for (line, expected) in [
            (
                "[generic] 404: Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
                SourceNotFound,
            ),
            (
                "[generic] 404: Unable to download webpage: HTTP Error 503: Service Unavailable (caused by <HTTPError 503: Service Unavailable>)",
                SourceUnavailable,
            ),
            (
                "[generic] private video: Unable to download webpage: HTTP Error 410: Gone (caused by <HTTPError 410: Gone>)",
                SourceNotFound,
            ),
            (
                "[generic] 401: Unable to download webpage: HTTP Error 401: Unauthorized (caused by <HTTPError 401: Unauthorized>)",
                SourceForbidden,
            ),
            (
                "[generic] 403: Unable to download webpage: HTTP Error 403: Forbidden (caused by <HTTPError 403: Forbidden>)",
                SourceForbidden,
            ),
            (
                "[generic] 451: Unable to download webpage: HTTP Error 451: Unavailable For Legal Reasons (caused by <HTTPError 451: Unavailable For Legal Reasons>)",
                SourceForbidden,
            ),
            (
                "[generic] 429: Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429: Too Many Requests>)",
                SourceRateLimited,
            ),
            (
                "[generic] 400: Unable to download webpage: HTTP Error 400: Bad Request (caused by <HTTPError 400: Bad Request>)",
                SourceUnavailable,
            ),
            (
                "[generic] 500: Unable to download webpage: HTTP Error 500: Internal Server Error (caused by <HTTPError 500: Internal Server Error>)",
                SourceUnavailable,
            ),
            (
                "[generic] loop: Unable to download webpage: HTTP Error 302: Found (redirect loop detected) (caused by <HTTPError 302: Found>)",
                SourceUnavailable,
            ),
            (
                "[generic] reset: Unable to download webpage: [Errno 104] Connection reset by peer (caused by TransportError('[Errno 104] Connection reset by peer'))",
                SourceUnavailable,
            ),
            (
                "[generic] empty: Unable to download webpage: Remote end closed connection without response (caused by TransportError('Remote end closed connection without response'))",
                SourceUnavailable,
            ),
            (
                "[generic] x: Unable to download webpage: [Errno 111] Connection refused (caused by TransportError('[Errno 111] Connection refused'))",
                SourceUnavailable,
            ),
            (
                "[generic] v: Unable to download webpage: [Errno -2] Name or service not known (caused by TransportError('[Errno -2] Name or service not known'))",
                SourceUnavailable,
            ),
            (
                "[generic] hang: Unable to download webpage: timed out (caused by TransportError('timed out'))",
                SourceUnavailable,
            ),
            (
                "[generic] video: Unable to download webpage: [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992) (caused by SSLError('[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)')); please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate issue template. Confirm you are on the latest version using  yt-dlp -U",
                SourceUnavailable,
            ),
            ("Unsupported URL: http://127.0.0.1:18765/article.html", Unsupported),
            ("Unsupported URL: http://e.org/private-video-removed-please-login", Unsupported),
            ("[generic] Unable to download webpage: HTTP Error 418: see http://e.org/login", SourceUnavailable),
            (
                "[vimeo] 1: This video is only available for registered users. Use --cookies, --cookies-from-browser, --username and --password, --netrc-cmd, or --netrc (vimeo) to provide account credentials",
                SourceForbidden,
            ),
            (
                "[zdf] x: This video is not available from your location due to geo restriction. You might want to use a VPN or a proxy server (with --proxy) to workaround.",
                SourceForbidden,
            ),
            ("[youtube] a: Private video. Sign in if you've been granted access to this video", SourceForbidden),
            (
                "[youtube] a: Sign in to confirm your age. This video may be inappropriate for some users.",
                SourceForbidden,
            ),
            (
                "[youtube] a: Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the authentication.",
                SourceRateLimited,
            ),
            ("[youtube] a: Video unavailable. This video has been removed by the uploader", SourceNotFound),
            ("[youtube] a: Video unavailable", SourceNotFound),
            ("[youtube] a: This video is not available", SourceNotFound),
            ("[youtube] a: This live event will begin in 3 hours.", LiveStream),
            ("[youtube] a: Premieres in 12 hours", LiveStream),
            ("[twitch:stream] a: The channel is not currently live", SourceNotFound),
            ("[brightcove:new] 1: This video is DRM protected", SourceForbidden),
            (
                "[generic] a: No video formats found!; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate issue template.",
                Unsupported,
            ),
            (
                "[youtube] a: Requested format is not available. Use --list-formats for a list of available formats",
                Unsupported,
            ),
            (
                "[x] a: Unable to extract title; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q=",
                DownloadFailed,
            ),
        ] {
            assert_eq!(kind(&[&format!("ERROR: {line}")], false), expected, "{line}");
        }
    }

    #[test]
    fn messages_of_the_download_have_their_kind() {
        for (lines, begun, expected) in [
            (&["ERROR: unable to download video data: HTTP Error 403: Forbidden"][..], false, SourceForbidden),
            (&["ERROR: unable to download video data: HTTP Error 404: Not Found"], false, SourceNotFound),
            (&["ERROR: unable to download video data: HTTP Error 429: Too Many Requests"], false, SourceRateLimited),
            (
                &["ERROR: [download] Got error: HTTP Error 503: Service Unavailable. Giving up after 2 retries"],
                false,
                SourceUnavailable,
            ),
            (
                &["ERROR: [download] Got error: [Errno 111] Connection refused. Giving up after 2 retries"],
                false,
                SourceUnavailable,
            ),
            (
                &[
                    "ERROR: [download] Got error: Downloaded 1000000 bytes, expected 5253854 bytes. Giving up after 2 retries",
                ],
                true,
                SourceBroken,
            ),
            (
                &["ERROR: [download] Got error: 1015808 bytes read, 4238046 more expected. Giving up after 3 retries"],
                true,
                SourceBroken,
            ),
            (
                &["ERROR: [download] Got error: [Errno 104] Connection reset by peer. Giving up after 2 retries"],
                true,
                SourceBroken,
            ),
            (&["ERROR: [download] Got error: timed out. Giving up after 2 retries"], true, SourceBroken),
            (&["ERROR: [download] Got error: timed out. Giving up after 2 retries"], false, SourceUnavailable),
            (
                &[
                    "ERROR: [download] Got error: HTTP Error 404: Not Found. Giving up after 2 retries",
                    "ERROR: fragment 5 not found, unable to continue",
                ],
                true,
                SourceBroken,
            ),
            (
                &[
                    "ERROR: [download] Got error: HTTP Error 404: Not Found. Giving up after 2 retries",
                    "ERROR: fragment 1 not found, unable to continue",
                ],
                false,
                SourceBroken,
            ),
            (&["ERROR: content too short (expected 5 bytes and served 3)"], true, SourceBroken),
            (&["", "ERROR: unable to write data: [Errno 28] No space left on device"], true, WorkerFailed),
            (&["ERROR: Unable to download video: [Errno 28] No space left on device"], true, WorkerFailed),
            (
                &["ERROR: unable to open for writing: [Errno 2] No such file or directory: 'media.mp4.part'"],
                false,
                WorkerFailed,
            ),
            (
                &[
                    "ERROR: You have requested merging of multiple formats but ffmpeg is not installed. Aborting due to --abort-on-error",
                ],
                false,
                WorkerFailed,
            ),
            (&["ERROR: ffmpeg exited with code 1"], false, DownloadFailed),
            (&["ERROR: Postprocessing: Conversion failed!"], true, DownloadFailed),
        ] {
            assert_eq!(kind(lines, begun), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_downloader_that_crashes_is_our_fault_and_one_without_words_has_no_kind() {
        assert_eq!(
            kind(
                &[
                    "Traceback (most recent call last):",
                    "  File \"x\"",
                    "ModuleNotFoundError: No module named 'yt_dlp'"
                ],
                false
            ),
            WorkerFailed
        );
        assert_eq!(
            kind(&["Usage: yt-dlp [OPTIONS] URL [URL...]", "", "yt-dlp: error: no such option: --nonsense"], false),
            WorkerFailed
        );
        assert_eq!(kind(&["OSError: [Errno 28] No space left on device"], false), WorkerFailed);
        assert_eq!(kind(&["something"], false), DownloadFailed);
        assert_eq!(kind(&[], false), DownloadFailed);
    }

    #[test]
    fn the_detail_is_the_last_error_without_the_call_for_reports() {
        let lines = [
            "WARNING: w",
            "ERROR: first",
            "ERROR: [x] a: Unable to extract title; please report this issue on  https://…",
            "trailing",
        ];
        let reason = classify(&lines.map(str::to_owned), false);
        assert_eq!(reason.detail, "[x] a: Unable to extract title");
    }
}
