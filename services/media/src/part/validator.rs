//! The version of a file that a source has returned.

use jiff::{Timestamp, fmt::rfc2822};
use millrace_domain::limits::LAST_MODIFIED_AGE_MIN;
use serde::{Deserialize, Serialize};

/// What a reply reveals about the version of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Validator {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    /// Of the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_total: Option<u64>,
}

/// A reply to a request for the file or a range of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    status: u16,
    validator: Validator,
    date: Option<String>,
    encoded: bool,
}

/// What all replies of one download show together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    /// There was no reply.
    Nothing,
    /// They do not contradict each other, but do not prove one version.
    Vague,
    /// All of them are of this version; `of_part`: the first is for a range of the file.
    Version { validator: &'a Validator, of_part: bool },
    /// They are of different versions.
    Changed,
}

/// The replies of one download.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies {
    first: Option<Reply>,
    /// Its headers may be incomplete.
    last: Option<Reply>,
    vague: bool,
    changed: bool,
}

impl Validator {
    fn contradicts(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_some_and(|(a, b)| a != b)
        }
        differ(self.etag.as_ref(), other.etag.as_ref())
            || differ(self.last_modified.as_ref(), other.last_modified.as_ref())
            || differ(self.bytes_total.as_ref(), other.bytes_total.as_ref())
    }
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header.
    pub(crate) fn header(&mut self, name: &str, value: &str) {
        let text = || Some(value.to_owned());
        match &*name.to_ascii_lowercase() {
            "etag" => self.validator.etag = text(),
            "last-modified" => self.validator.last_modified = text(),
            "date" => self.date = text(),
            "content-encoding" => self.encoded = !value.eq_ignore_ascii_case("identity"),
            "content-length" if self.status == 200 => self.validator.bytes_total = value.parse().ok(),
            // `bytes 10-99/100`; `*` if the server does not know.
            "content-range" if self.status == 206 => {
                self.validator.bytes_total = value.rsplit_once('/').and_then(|(_, total)| total.parse().ok());
            }
            _ => {}
        }
    }

    /// Whether it concerns the file: a redirect or a refusal does not. A 416 does, since the downloader only requests
    /// ranges that the file had.
    const fn counts(&self) -> bool {
        matches!(self.status, 200..300 | 416)
    }

    /// Whether an equal validator means equal bytes: by a strong entity tag, or by a time of last change so far back
    /// that no second change happened in the same second (RFC 9110, 8.8). Never without the length.
    fn is_strong(&self) -> bool {
        let Validator { etag, last_modified, bytes_total } = &self.validator;
        let tagged = etag.as_ref().is_some_and(|tag| tag.starts_with('"'));
        let time = |text: &Option<String>| time(text.as_deref()?);
        let settled = || {
            let age = time(&self.date)?.duration_since(time(last_modified)?);
            (age >= LAST_MODIFIED_AGE_MIN.try_into().ok()?).then_some(())
        };
        bytes_total.is_some() && !self.encoded && (tagged || settled().is_some())
    }
}

fn time(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

impl Replies {
    /// Begins a reply.
    pub(crate) fn begin(&mut self, reply: Reply) {
        self.end();
        self.last = Some(reply);
    }

    /// The reply whose headers are incomplete.
    pub(crate) const fn current(&mut self) -> Option<&mut Reply> {
        self.last.as_mut()
    }

    /// Completes the last reply.
    pub(crate) fn end(&mut self) {
        let Some(last) = self.last.take().filter(Reply::counts) else { return };
        self.changed |= last.status == 416;
        self.vague |= !last.is_strong();
        match &self.first {
            Some(first) => {
                self.changed |= first.validator.contradicts(&last.validator);
                self.vague |= first.validator != last.validator;
            }
            None => self.first = Some(last),
        }
    }

    /// What the complete replies show together.
    pub(crate) fn told(&self) -> Told<'_> {
        match &self.first {
            _ if self.changed => Told::Changed,
            None => Told::Nothing,
            Some(_) if self.vague => Told::Vague,
            Some(first) => Told::Version { validator: &first.validator, of_part: first.status == 206 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: (&str, &str) = ("Date", "Wed, 25 Nov 2026 09:02:00 GMT");

    fn replies(all: &[(u16, &[(&str, &str)])]) -> Replies {
        let mut replies = Replies::default();
        for (status, headers) in all {
            replies.begin(Reply::new(*status));
            for (name, value) in *headers {
                replies.current().unwrap().header(name, value);
            }
        }
        replies.end();
        replies
    }

    fn is_version(told: Told<'_>) -> bool {
        matches!(told, Told::Version { .. })
    }

    #[test]
    fn one_version_is_a_strong_tag_or_a_settled_time_with_a_length() {
        let length = ("content-length", "100");
        let modified = |time| ("Last-Modified", time);
        for (expected, headers) in [
            (true, &[("ETag", "\"a\""), length][..]),
            (false, &[("ETag", "\"a\"")]),
            (false, &[("ETag", "W/\"a\""), length]),
            (false, &[("ETag", "\"a\""), length, ("Content-Encoding", "gzip")]),
            (true, &[("ETag", "\"a\""), length, ("Content-Encoding", "identity")]),
            (false, &[length]),
            (true, &[length, DATE, modified("Wed, 25 Nov 2026 09:01:00 GMT")]),
            (true, &[("ETag", "W/\"a\""), length, DATE, modified("Wed, 25 Nov 2026 09:01:00 GMT")]),
            (false, &[length, DATE, modified("Wed, 25 Nov 2026 09:01:01 GMT")]),
            (false, &[length, DATE, modified("yesterday")]),
            (false, &[length, modified("Wed, 25 Nov 2026 09:01:00 GMT")]),
        ] {
            let told = replies(&[(200, headers)]);
            assert_eq!(is_version(told.told()), expected, "{headers:?}");
            assert!(expected || told.told() == Told::Vague, "{headers:?}");
        }
    }

    #[test]
    fn parts_of_one_version_agree_and_redirects_and_refusals_say_nothing() {
        let tag = ("ETag", "\"a\"");
        let whole: (u16, &[_]) = (200, &[tag, ("Content-Length", "100")]);
        let part: (u16, &[_]) = (206, &[tag, ("Content-Length", "90"), ("Content-Range", "bytes 10-99/100")]);
        let elsewhere: (u16, &[_]) = (302, &[("ETag", "\"of a page\""), ("Content-Length", "7")]);
        let refused: (u16, &[_]) = (503, &[("ETag", "\"of an error\"")]);
        assert!(is_version(replies(&[elsewhere, whole, refused, part]).told()));
        assert_eq!(replies(&[elsewhere, refused]).told(), Told::Nothing);
        let version = |reply| match replies(&[reply]).told() {
            Told::Version { validator, of_part } => (validator.clone(), of_part),
            other => panic!("{other:?}"),
        };
        assert_eq!(version(part), (version(whole).0, true));
        let open: (u16, &[_]) = (206, &[tag, ("Content-Range", "bytes 10-99/*")]);
        assert_eq!(replies(&[whole, open]).told(), Told::Vague);
        assert_eq!(replies(&[whole, (200, &[("Content-Length", "100")])]).told(), Told::Vague);
    }

    #[test]
    fn another_tag_time_or_length_and_a_range_that_is_gone_are_a_change() {
        let whole: (u16, &[_]) =
            (200, &[("ETag", "\"a\""), ("Content-Length", "100"), ("Last-Modified", "Wed, 25 Nov 2026 09:01:00 GMT")]);
        for other in [
            (200, &[("ETag", "\"b\""), ("Content-Length", "100")][..]),
            (206, &[("ETag", "\"a\""), ("Content-Range", "bytes 10-99/101")]),
            (200, &[("Last-Modified", "Wed, 25 Nov 2026 09:02:00 GMT")]),
            (416, &[("Content-Range", "bytes */5")]),
        ] {
            assert_eq!(replies(&[whole, other]).told(), Told::Changed, "{other:?}");
        }
    }
}
