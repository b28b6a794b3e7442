//! Names of stored files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{ids::JobId, limits::FILE_STEM_CHARS_MAX};

/// Characters that RFC 8187 allows unescaped.
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The prefix of all keys. Frozen.
pub const FOLDER: &str = "jobs";

/// The name under which a browser saves the video, made from its title: any script, but no characters with a meaning in
/// a file system.
#[must_use]
pub fn file_name(title: Option<&str>, extension: &str) -> String {
    let stem: String = title
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_control() || "/\\:*?\"<>|".contains(c) { ' ' } else { c })
        .take(FILE_STEM_CHARS_MAX)
        .collect();
    let stem = stem.split_whitespace().collect::<Vec<_>>().join(" ");
    let stem = stem.trim_matches(['.', ' ']);
    let stem = if stem.is_empty() { "video" } else { stem };
    format!("{stem}.{}", ascii(extension).unwrap_or_else(|| "bin".into()))
}

/// The key of an attempt's file: `jobs/<id>/<attempt>/<name>`, ASCII, unique to the attempt.
#[must_use]
pub fn key(id: &JobId, attempt: u32, file_name: &str) -> String {
    let (stem, extension) = file_name.rsplit_once('.').unwrap_or((file_name, "bin"));
    let stem = ascii(stem).unwrap_or_else(|| "video".into());
    let extension = ascii(extension).unwrap_or_else(|| "bin".into());
    format!("{FOLDER}/{id}/{attempt}/{stem}.{extension}")
}

/// The prefix of the keys of a job's files.
#[must_use]
pub fn folder(id: &JobId) -> String {
    format!("{FOLDER}/{id}")
}

/// The job and attempt that a key belongs to; `None` for a foreign key.
#[must_use]
pub fn owner(key: &str) -> Option<(JobId, u32)> {
    let mut parts = key.split('/');
    let (FOLDER, id, attempt, Some(_name)) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    Some((id.parse().ok()?, attempt.parse().ok()?))
}

/// The `Content-Disposition` with which a browser saves a file instead of showing it (RFC 6266).
#[must_use]
pub fn content_disposition(file_name: &str) -> String {
    let fallback: String = file_name
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '_' })
        .collect();
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{}", utf8_percent_encode(file_name, ATTR_CHAR))
}

/// Letters, digits, `-` and `_`; everything else becomes one `-`. `None` when nothing is left.
fn ascii(text: &str) -> Option<String> {
    let words: Vec<_> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).collect();
    (!words.is_empty()).then(|| words.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_becomes_a_name_that_every_file_system_takes() {
        assert_eq!(file_name(Some("Über / alles: \"x\"\n"), "mp4"), "Über alles x.mp4");
        assert_eq!(file_name(Some("../../etc/passwd"), "mp4"), "etc passwd.mp4");
        assert_eq!(file_name(Some(" . "), "mp4"), "video.mp4");
        assert_eq!(file_name(None, "m/p"), "video.m-p");
        assert!(file_name(Some(&"x".repeat(1000)), "mp4").len() < 200);
    }

    #[test]
    fn a_key_is_ascii_and_belongs_to_its_attempt() {
        let id: JobId = "a".parse().unwrap();
        assert_eq!(key(&id, 2, "Über alles.mp4"), "jobs/a/2/ber-alles.mp4");
        assert_eq!(key(&id, 1, "日本.mp4"), "jobs/a/1/video.mp4");
        assert_eq!(owner(&key(&id, 7, "x.mp4")), Some((id.clone(), 7)));
        assert!(key(&id, 7, "x.mp4").starts_with(&format!("{}/", folder(&id))));
        for foreign in ["jobs/a/1", "jobs/a/b/x", "other/a/1/x", "jobs//1/x", ""] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_disposition_cannot_be_broken_out_of() {
        let header = content_disposition("a\"; x=\"日.mp4");
        assert_eq!(header, "attachment; filename=\"a_; x=__.mp4\"; filename*=UTF-8''a%22%3B%20x%3D%22%E6%97%A5.mp4");
    }
}
