//! What the source asks for by `Retry-After`, read from the traffic that the downloader prints.
//!
//! The downloader's errors tell the status of an answer and not its headers, and to ask again only for them would be the
//! opposite of what they say.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};

/// The newest answer that the downloader has had, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    refused: bool,
    retry_after: Option<String>,
}

impl Traffic {
    /// Takes a line; whether it was one of the traffic.
    pub(super) fn take(&mut self, line: &str) -> bool {
        if let Some(reply) = line.strip_prefix("reply: ") {
            // `reply: 'HTTP/1.1 429 Too Many Requests\r\n'`
            let status = reply.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            self.refused = status.is_some_and(|status| status == 429 || (500..600).contains(&status));
            self.retry_after = None;
        } else if let Some(header) = line.strip_prefix("header: ") {
            if let Some((name, value)) = header.split_once(':')
                && self.refused
                && name.eq_ignore_ascii_case("retry-after")
            {
                self.retry_after = Some(value.trim().to_owned());
            }
        } else {
            return ["send: ", "director: ", "requests: ", "urllib: "].iter().any(|start| line.starts_with(start));
        }
        true
    }

    /// For how long from `now` the source wants to be left alone: it refused the last request, and said so.
    pub(super) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
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
