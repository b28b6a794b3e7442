//! Classifies the downloader's error output. It has no error codes, only text.

use millrace_domain::failure::FailureKind;

use crate::error::Reason;

/// Kinds of failure and their texts, in lower case. The first match in the table decides, in any error line.
const TABLE: &[(FailureKind, &[&str])] = &[
    (FailureKind::WorkerFull, &["no space left on device", "[errno 28]", "disk quota exceeded", "[errno 122]"]),
    (
        FailureKind::WorkerFailed,
        &[
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
        FailureKind::SourceGeoBlocked,
        &[
            "geo restriction",
            "geo-restrict",
            "geoblock",
            "geo-block",
            "in your country",
            "in your region",
            "in your area",
            "from your location",
            "at your territory",
        ],
    ),
    (
        FailureKind::SourcePrivate,
        &[
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
            "paywall",
        ],
    ),
    (
        // The page was available, but the source refuses the file's address. A refusal of the page has another text.
        FailureKind::LinkExpired,
        &["unable to download video data: http error 401", "unable to download video data: http error 403"],
    ),
    (
        FailureKind::SourceForbidden,
        &["http error 401", "http error 402", "http error 403", "http error 407", "http error 451", "drm"],
    ),
    (
        FailureKind::Unsupported,
        &[
            "no video formats found",
            "requested format is not available",
            "no suitable extractor",
            "is not a valid url",
            "no connection adapters", // a redirect to something else than http
            "there's no video",
            "no video in",
            "no media found",
            "no video could be found",
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
            "failed to resolve",
            "failed to establish a new connection",
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
];

/// Classifies the last lines of the downloader's error output. `begun`: bytes of the file had arrived.
pub(crate) fn classify(stderr: &[String], begun: bool) -> Reason {
    let mut errors: Vec<&str> = stderr.iter().filter_map(|line| line.strip_prefix("ERROR: ")).map(str::trim).collect();
    let Some(last) = errors.last().copied().or_else(|| stderr.last().map(String::as_str)) else {
        return Reason::new(FailureKind::DownloadFailed, "the downloader failed without an error message");
    };
    if errors.is_empty() {
        // The lines are not the downloader's own errors: it crashed, or was never started.
        errors = stderr.iter().map(String::as_str).collect();
        let kind =
            kind_of_any(&errors).filter(|kind| matches!(kind, FailureKind::WorkerFull | FailureKind::WorkerFailed));
        let crashed =
            errors.iter().any(|line| line.starts_with("Traceback (most recent call last)") || line.contains("error: "));
        let kind = kind.or(crashed.then_some(FailureKind::WorkerFailed)).unwrap_or(FailureKind::DownloadFailed);
        return Reason::new(kind, last);
    }
    let kind = kind_of_any(&errors).unwrap_or(FailureKind::DownloadFailed);
    // A site that fails in the middle of a file has delivered the first half: the address expired, or the network
    // broke.
    let kind = match kind {
        FailureKind::SourceForbidden if begun => FailureKind::LinkExpired,
        FailureKind::SourceUnavailable | FailureKind::SourceNotFound if begun => FailureKind::SourceBroken,
        kind => kind,
    };
    let told = last.split_once("; please report this issue").map_or(last, |(told, _)| told);
    Reason::new(kind, told)
}

fn kind_of_any(errors: &[&str]) -> Option<FailureKind> {
    let messages: Vec<String> = errors.iter().map(|error| message(error).to_ascii_lowercase()).collect();
    if messages.iter().any(|message| message.starts_with("unsupported url:")) {
        // The rest of the line is the address, which may contain any text.
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
mod tests;
