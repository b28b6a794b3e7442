//! One file as an HTTP response: ranges, entity tags, HEAD, and faults on request.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;

use super::throttle::{End, body};

/// A file in memory.
#[derive(Clone)]
pub(super) struct Entity {
    pub(super) bytes: Bytes,
    pub(super) content_type: &'static str,
    /// Quoted, as in the header.
    pub(super) etag: String,
}

/// How a site indicates the version of its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Version {
    /// By an entity tag.
    #[default]
    Tag,
    /// By the time of the last change, which is long ago.
    Date,
    /// Not at all.
    None,
}

/// How a file is served, apart from its bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner {
    pub(super) rate: Option<u64>,
    pub(super) fault: Option<Fault>,
    pub(super) version: Version,
    /// A `Range` is ignored.
    pub(super) whole: bool,
}

/// The position of a fault, counted from the start of the file, not of the requested range.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) end: End,
}

/// Answers a GET or HEAD for `entity`.
pub(super) fn respond(entity: &Entity, method: &Method, headers: &HeaderMap, manner: Manner) -> Response {
    let len = entity.bytes.len();
    let mut response = match asked(headers, &entity.etag, len) {
        Asked::Range(_) | Asked::Unsatisfiable if manner.whole => send(entity, 0..len, method, manner),
        Asked::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Asked::Unsatisfiable => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{len}"))];
            (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response()
        }
        Asked::Whole => send(entity, 0..len, method, manner),
        Asked::Range(range) => {
            let content_range = [(header::CONTENT_RANGE, format!("bytes {}-{}/{len}", range.start, range.end - 1))];
            (StatusCode::PARTIAL_CONTENT, content_range, send(entity, range, method, manner)).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static(if manner.whole { "none" } else { "bytes" }));
    match manner.version {
        Version::Tag => {
            if let Ok(etag) = HeaderValue::from_str(&entity.etag) {
                headers.insert(header::ETAG, etag);
            }
        }
        Version::Date => {
            headers.insert(header::LAST_MODIFIED, HeaderValue::from_static("Wed, 25 Nov 2020 09:00:00 GMT"));
        }
        Version::None => {}
    }
    response
}

fn send(entity: &Entity, range: std::ops::Range<usize>, method: &Method, manner: Manner) -> Response {
    let content_length = range.len();
    let (until, end) = match manner.fault {
        Some(fault) if fault.at < range.end => (fault.at.max(range.start), fault.end),
        _ => (range.end, End::Whole),
    };
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(body(entity.bytes.slice(range.start..until), manner.rate, end)),
    };
    let headers =
        [(header::CONTENT_TYPE, entity.content_type.to_owned()), (header::CONTENT_LENGTH, content_length.to_string())];
    (headers, body).into_response()
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    /// Not empty, and within the file.
    Range(std::ops::Range<usize>),
    Unsatisfiable,
    NotModified,
}

fn asked(headers: &HeaderMap, etag: &str, len: usize) -> Asked {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| tags == "*" || tags.split(',').any(|tag| tag.trim() == etag)) {
        return Asked::NotModified;
    }
    let Some(range) = text(header::RANGE) else { return Asked::Whole };
    if text(header::IF_RANGE).is_some_and(|tag| tag != etag) {
        return Asked::Whole;
    }
    parse_range(range, len)
}

/// Parses one range. A list, or a range in another unit, is ignored, as the standard allows.
fn parse_range(text: &str, len: usize) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    let number = |text: &str| if text.is_empty() { Ok(None) } else { text.trim().parse::<usize>().map(Some) };
    let (Ok(first), Ok(last)) = (number(first), number(last)) else { return Asked::Whole };
    let range = match (first, last) {
        (Some(first), Some(last)) if last < first => return Asked::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(len),
        (Some(first), None) => first..len,
        (None, Some(count)) => len.saturating_sub(count)..len,
        (None, None) => return Asked::Whole,
    };
    if range.is_empty() { Asked::Unsatisfiable } else { Asked::Range(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        assert_eq!(parse_range("bytes=0-0", 10), Asked::Range(0..1));
        assert_eq!(parse_range("bytes=4-", 10), Asked::Range(4..10));
        assert_eq!(parse_range("bytes=4-99", 10), Asked::Range(4..10));
        assert_eq!(parse_range("bytes=-3", 10), Asked::Range(7..10));
        assert_eq!(parse_range("bytes=-99", 10), Asked::Range(0..10));
        assert_eq!(parse_range("bytes=10-", 10), Asked::Unsatisfiable);
        assert_eq!(parse_range("bytes=-0", 10), Asked::Unsatisfiable);
        for ignored in ["bytes=5-4", "bytes=0-1,3-4", "bytes=-", "bytes=x-1", "lines=1-2"] {
            assert_eq!(parse_range(ignored, 10), Asked::Whole, "{ignored}");
        }
    }

    #[test]
    fn a_range_of_another_version_gives_the_whole() {
        let headers = |name, value| {
            HeaderMap::from_iter([
                (header::RANGE, HeaderValue::from_static("bytes=1-2")),
                (name, HeaderValue::from_static(value)),
            ])
        };
        assert_eq!(asked(&headers(header::IF_RANGE, "\"new\""), "\"new\"", 10), Asked::Range(1..3));
        assert_eq!(asked(&headers(header::IF_RANGE, "\"old\""), "\"new\"", 10), Asked::Whole);
        assert_eq!(asked(&headers(header::IF_NONE_MATCH, "\"old\", \"new\""), "\"new\"", 10), Asked::NotModified);
    }
}
