//! File name extensions and MIME types.

/// The extensions of stored files, each with its type for video and for sound alone.
///
/// The list is short on purpose: a file of any other type is stored as plain bytes, so that no source can make the edge
/// serve a page or a script.
const TYPES: &[(&str, &str, &str)] = &[
    ("mp4", "video/mp4", "audio/mp4"),
    ("m4v", "video/mp4", "audio/mp4"),
    ("m4a", "video/mp4", "audio/mp4"),
    ("mov", "video/quicktime", "video/quicktime"),
    ("3gp", "video/3gpp", "audio/3gpp"),
    ("webm", "video/webm", "audio/webm"),
    ("weba", "video/webm", "audio/webm"),
    ("mkv", "video/x-matroska", "audio/x-matroska"),
    ("mka", "video/x-matroska", "audio/x-matroska"),
    ("ogv", "video/ogg", "audio/ogg"),
    ("ogg", "video/ogg", "audio/ogg"),
    ("oga", "video/ogg", "audio/ogg"),
    ("opus", "audio/ogg", "audio/ogg"),
    ("mp3", "audio/mpeg", "audio/mpeg"),
    ("aac", "audio/aac", "audio/aac"),
    ("flac", "audio/flac", "audio/flac"),
    ("wav", "audio/wav", "audio/wav"),
    ("ts", "video/mp2t", "video/mp2t"),
    ("mpg", "video/mpeg", "audio/mpeg"),
    ("mpeg", "video/mpeg", "audio/mpeg"),
    ("avi", "video/x-msvideo", "video/x-msvideo"),
    ("flv", "video/x-flv", "video/x-flv"),
    ("wmv", "video/x-ms-wmv", "audio/x-ms-wma"),
    ("wma", "video/x-ms-wmv", "audio/x-ms-wma"),
    ("gif", "image/gif", "image/gif"),
];

/// ffprobe's names of containers, each with the extension for a file whose own is not listed.
const CONTAINERS: &[(&str, &str)] = &[
    ("mov", "mp4"),
    ("matroska", "mkv"),
    ("ogg", "ogg"),
    ("mp3", "mp3"),
    ("aac", "aac"),
    ("flac", "flac"),
    ("wav", "wav"),
    ("mpegts", "ts"),
    ("mpeg", "mpg"),
    ("avi", "avi"),
    ("flv", "flv"),
    ("asf", "wmv"),
    ("gif", "gif"),
];

/// The extension and the MIME type of a file with this `extension` (without a dot) and ffprobe's `container`.
pub(crate) fn of(extension: &str, container: &str, has_video: bool) -> (&'static str, &'static str) {
    let extension = extension.to_ascii_lowercase();
    let by_name = |wanted: &str| TYPES.iter().find(|(name, ..)| *name == wanted);
    let first = container.split(',').next().unwrap_or_default();
    let by_container =
        || CONTAINERS.iter().find(|(name, _)| *name == first).and_then(|(_, extension)| by_name(extension));
    match by_name(&extension).or_else(by_container) {
        Some((name, video, sound)) => (name, if has_video { video } else { sound }),
        None => ("bin", "application/octet-stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_extension_decides() {
        assert_eq!(of("mp4", "mov,mp4,m4a,3gp,3g2,mj2", true), ("mp4", "video/mp4"));
        assert_eq!(of("M4A", "mov,mp4,m4a,3gp,3g2,mj2", false), ("m4a", "audio/mp4"));
        assert_eq!(of("webm", "matroska,webm", true), ("webm", "video/webm"));
        assert_eq!(of("mkv", "matroska,webm", true), ("mkv", "video/x-matroska"));
        assert_eq!(of("mp3", "mp3", false), ("mp3", "audio/mpeg"));
        assert_eq!(of("ogg", "ogg", false), ("ogg", "audio/ogg"));
    }

    #[test]
    fn the_container_decides_for_any_other_name() {
        assert_eq!(of("unknown_video", "mov,mp4,m4a,3gp,3g2,mj2", true), ("mp4", "video/mp4"));
        assert_eq!(of("html", "matroska,webm", false), ("mkv", "audio/x-matroska"));
        assert_eq!(of("svg", "nut", true), ("bin", "application/octet-stream"));
    }

    #[test]
    fn every_container_has_a_type() {
        for (container, extension) in CONTAINERS {
            assert_eq!(of("", container, true).0, *extension);
        }
    }
}
