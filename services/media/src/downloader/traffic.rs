//! Reads the headers of the source's replies from the traffic that the downloader prints.
//!
//! The downloader's errors report the status of a reply but not its headers, and a second request to a source that asks
//! for a pause would be wrong. Therefore this module reads `Retry-After` from the traffic, as well as the version of
//! the downloaded file.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};

use crate::part::validator::{Replies, Reply, Told};

/// The newest reply, as far as it matters, and all replies of the download itself.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    refused: bool,
    retry_after: Option<String>,
    /// `None` before the download.
    replies: Option<Replies>,
    /// The last request was a `GET`, and not the `CONNECT` of a proxy.
    got: bool,
}

impl Traffic {
    /// Handles a line; returns whether it is traffic.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        if let Some(reply) = line.strip_prefix("reply: ") {
            // `reply: 'HTTP/1.1 429 Too Many Requests\r\n'`
            let status = reply.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            self.refused = status.is_some_and(|status| status == 429 || (500..600).contains(&status));
            self.retry_after = None;
            if let Some(replies) = self.replies.as_mut().filter(|_| self.got) {
                replies.begin(Reply::new(status.unwrap_or_default()));
            }
            return true;
        }
        if let Some(header) = line.strip_prefix("header: ") {
            if let Some((name, value)) = header.split_once(':') {
                let value = value.trim();
                if self.refused && name.eq_ignore_ascii_case("retry-after") {
                    self.retry_after = Some(value.to_owned());
                }
                if let Some(reply) = self.replies.as_mut().and_then(Replies::current) {
                    reply.header(name, value);
                }
            }
            return true;
        }
        if let Some(request) = line.strip_prefix("send: ") {
            // `send: b'GET /video.mp4 HTTP/1.1\r\n…'`
            self.got = request.get(2..).is_some_and(|request| request.starts_with("GET "));
        }
        // Any line but a header ends the headers before it.
        let traffic = ["send: ", "director: ", "requests: ", "urllib: "].iter().any(|start| line.starts_with(start));
        if traffic && let Some(replies) = &mut self.replies {
            replies.end();
        }
        traffic
    }

    /// From now on replies belong to the download. The downloader writes our lines at once and the traffic late, but
    /// before the second of two adjacent lines it has written all traffic before the first.
    pub(crate) fn begin_download(&mut self) {
        self.replies = Some(Replies::default());
    }

    /// What the replies show so far. Call it only after a line of ours or at the end, when the traffic before is
    /// complete.
    pub(crate) fn told(&mut self) -> Told<'_> {
        match &mut self.replies {
            Some(replies) => {
                replies.end();
                replies.told()
            }
            None => Told::Nothing,
        }
    }
    /// How long from `now` the source wants no request, if it refused the last one with a `Retry-After`.
    pub(crate) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let value = self.retry_after.as_deref()?;
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: &str = r"reply: 'HTTP/1.1 429 Too Many Requests\r\n'";

    fn after(lines: &[&str]) -> Option<Duration> {
        let mut traffic = Traffic::default();
        for line in lines {
            assert!(traffic.take(line), "{line}");
        }
        traffic.retry_after("2026-11-25T09:00:00Z".parse().unwrap())
    }

    #[test]
    fn seconds_and_dates_are_read_and_anything_else_is_not() {
        for (value, expected) in [
            ("7", Some(7)),
            ("Wed, 25 Nov 2026 09:02:00 GMT", Some(120)),
            ("Wed, 25 Nov 2026 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let header = format!("header: Retry-After: {value}");
            assert_eq!(after(&[BUSY, &header]), expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(after(&[BUSY, "header: retry-after: 3"]), Some(Duration::from_secs(3)));
    }

    #[test]
    fn only_the_last_answer_counts_and_only_if_it_was_a_refusal() {
        let asked = "header: Retry-After: 7";
        assert_eq!(after(&[asked]), None);
        assert_eq!(after(&[BUSY, asked, BUSY]), None);
        assert_eq!(after(&[r"reply: 'HTTP/1.1 302 Found\r\n'", asked]), None);
        assert_eq!(after(&[BUSY, asked, r"send: b'GET / HTTP/1.1\r\n'"]), Some(Duration::from_secs(7)));
        assert!(!Traffic::default().take(r#"P {"status": "downloading"}"#));
    }
}
