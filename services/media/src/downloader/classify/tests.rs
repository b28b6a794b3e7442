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
            "[generic] 404: Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not \
             Found>)",
            SourceNotFound,
        ),
        (
            "[generic] 404: Unable to download webpage: HTTP Error 503: Service Unavailable (caused by <HTTPError \
             503: Service Unavailable>)",
            SourceUnavailable,
        ),
        (
            "[generic] private video: Unable to download webpage: HTTP Error 410: Gone (caused by <HTTPError 410: \
             Gone>)",
            SourceNotFound,
        ),
        (
            "[generic] 401: Unable to download webpage: HTTP Error 401: Unauthorized (caused by <HTTPError 401: \
             Unauthorized>)",
            SourceForbidden,
        ),
        (
            "[generic] 403: Unable to download webpage: HTTP Error 403: Forbidden (caused by <HTTPError 403: \
             Forbidden>)",
            SourceForbidden,
        ),
        (
            "[generic] 451: Unable to download webpage: HTTP Error 451: Unavailable For Legal Reasons (caused by \
             <HTTPError 451: Unavailable For Legal Reasons>)",
            SourceForbidden,
        ),
        (
            "[generic] 429: Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429: \
             Too Many Requests>)",
            SourceRateLimited,
        ),
        (
            "[generic] 400: Unable to download webpage: HTTP Error 400: Bad Request (caused by <HTTPError 400: Bad \
             Request>)",
            SourceUnavailable,
        ),
        (
            "[generic] 500: Unable to download webpage: HTTP Error 500: Internal Server Error (caused by <HTTPError \
             500: Internal Server Error>)",
            SourceUnavailable,
        ),
        (
            "[generic] loop: Unable to download webpage: HTTP Error 302: Found (redirect loop detected) (caused by \
             <HTTPError 302: Found>)",
            SourceUnavailable,
        ),
        (
            "[generic] reset: Unable to download webpage: [Errno 104] Connection reset by peer (caused by \
             TransportError('[Errno 104] Connection reset by peer'))",
            SourceUnavailable,
        ),
        (
            "[generic] empty: Unable to download webpage: Remote end closed connection without response (caused by \
             TransportError('Remote end closed connection without response'))",
            SourceUnavailable,
        ),
        (
            "[generic] x: Unable to download webpage: [Errno 111] Connection refused (caused by \
             TransportError('[Errno 111] Connection refused'))",
            SourceUnavailable,
        ),
        (
            "[generic] v: Unable to download webpage: [Errno -2] Name or service not known (caused by \
             TransportError('[Errno -2] Name or service not known'))",
            SourceUnavailable,
        ),
        (
            "[generic] hang: Unable to download webpage: timed out (caused by TransportError('timed out'))",
            SourceUnavailable,
        ),
        (
            "[generic] video: Unable to download webpage: [SSL: WRONG_VERSION_NUMBER] wrong version number \
             (_ssl.c:992) (caused by SSLError('[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)')); \
             please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate \
             issue template. Confirm you are on the latest version using  yt-dlp -U",
            SourceUnavailable,
        ),
        (
            "[generic] hang: Unable to download webpage: HTTPConnectionPool(host='127.0.0.1', port=18765): Read \
             timed out. (read timeout=5.0) (caused by TransportError(\"HTTPConnectionPool(host='127.0.0.1', \
             port=18765): Read timed out. (read timeout=5.0)\"))",
            SourceUnavailable,
        ),
        (
            "[generic] empty: Unable to download webpage: ('Connection aborted.', RemoteDisconnected('Remote end \
             closed connection without response')) (caused by TransportError(\"('Connection aborted.', \
             RemoteDisconnected('Remote end closed connection without response'))\"))",
            SourceUnavailable,
        ),
        (
            "[generic] v: Unable to download webpage: HTTPConnection(host='nowhere.invalid', port=80): Failed to \
             resolve 'nowhere.invalid' ([Errno -2] Name or service not known) (caused by TransportError(\"…\"))",
            SourceUnavailable,
        ),
        ("No connection adapters were found for 'file:///etc/passwd'", Unsupported),
        ("Unsupported URL: http://127.0.0.1:18765/article.html", Unsupported),
        ("Unsupported URL: http://e.org/private-video-removed-please-login", Unsupported),
        ("[generic] Unable to download webpage: HTTP Error 418: see http://e.org/login", SourceUnavailable),
        (
            "[vimeo] 1: This video is only available for registered users. Use --cookies, --cookies-from-browser, \
             --username and --password, --netrc-cmd, or --netrc (vimeo) to provide account credentials",
            SourcePrivate,
        ),
        (
            "[zdf] x: This video is not available from your location due to geo restriction. You might want to use a \
             VPN or a proxy server (with --proxy) to workaround.",
            SourceGeoBlocked,
        ),
        ("[youtube] a: Private video. Sign in if you've been granted access to this video", SourcePrivate),
        ("[youtube] a: Sign in to confirm your age. This video may be inappropriate for some users.", SourcePrivate),
        (
            "[youtube] a: Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the \
             authentication.",
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
            "[generic] a: No video formats found!; please report this issue on  \
             https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate issue template.",
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
        (&["ERROR: unable to download video data: HTTP Error 403: Forbidden"][..], false, LinkExpired),
        (&["ERROR: unable to download video data: HTTP Error 404: Not Found"], false, SourceNotFound),
        (&["ERROR: [download] Got error: HTTP Error 403: Forbidden. Giving up after 3 retries"], true, LinkExpired),
        (&["ERROR: [download] Got error: HTTP Error 404: Not Found. Giving up after 3 retries"], true, SourceBroken),
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
            &["ERROR: [download] Got error: Downloaded 1000000 bytes, expected 5253854 bytes. Giving up after 2 \
                 retries"],
            true,
            SourceBroken,
        ),
        (
            &["ERROR: \r[download] Got error: 1015808 bytes read, 4238046 more expected. Giving up after 3 retries"],
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
        (&["", "ERROR: unable to write data: [Errno 28] No space left on device"], true, WorkerFull),
        (&["ERROR: Unable to download video: [Errno 28] No space left on device"], true, WorkerFull),
        (
            &["ERROR: unable to open for writing: [Errno 2] No such file or directory: 'media.mp4.part'"],
            false,
            WorkerFailed,
        ),
        (
            &["ERROR: You have requested merging of multiple formats but ffmpeg is not installed. Aborting due to \
                 --abort-on-error"],
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
            &["Traceback (most recent call last):", "  File \"x\"", "ModuleNotFoundError: No module named 'yt_dlp'"],
            false
        ),
        WorkerFailed
    );
    assert_eq!(
        kind(&["Usage: yt-dlp [OPTIONS] URL [URL...]", "", "yt-dlp: error: no such option: --nonsense"], false),
        WorkerFailed
    );
    assert_eq!(kind(&["OSError: [Errno 28] No space left on device"], false), WorkerFull);
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
