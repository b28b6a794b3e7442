//! Classifies the first request of a connection: may an event loop answer it? Pure.

use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use millrace_domain::limits::WS_HANDSHAKE_HEADERS_MAX;

use super::handshake::PATH;

/// The first request, as far as it has arrived.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is looked at once, on the stack")]
pub enum FirstRequest {
    /// The head is incomplete.
    Partial,
    /// A `GET` without a body for a path under [`PATH`], and the length of its head.
    Socket(Request<()>, usize),
    /// Any other request, or more headers than a handshake has: hyper answers it.
    Other,
    /// Not an HTTP request.
    Malformed,
}

/// Classifies the bytes that have arrived; the first `seen` bytes are known to hold no complete head.
pub fn parse(bytes: &[u8], seen: usize) -> FirstRequest {
    // A client that sends byte by byte must not cause a parse for each byte.
    if seen > 0 && !has_empty_line(&bytes[seen.saturating_sub(3)..]) {
        return FirstRequest::Partial;
    }
    let mut headers = [httparse::EMPTY_HEADER; WS_HANDSHAKE_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => FirstRequest::Partial,
        Ok(httparse::Status::Complete(length)) => {
            socket(&request).map_or(FirstRequest::Other, |request| FirstRequest::Socket(request, length))
        }
        Err(httparse::Error::TooManyHeaders) => FirstRequest::Other,
        Err(_) => FirstRequest::Malformed,
    }
}

fn socket(request: &httparse::Request<'_, '_>) -> Option<Request<()>> {
    let path = request.path.filter(|path| path.starts_with(PATH))?;
    if request.method != Some("GET") || request.version != Some(1) {
        return None;
    }
    let mut socket = Request::new(());
    *socket.method_mut() = Method::GET;
    *socket.uri_mut() = path.parse::<Uri>().ok()?;
    for given in request.headers.iter() {
        let name = HeaderName::from_bytes(given.name.as_bytes()).ok()?;
        if matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::EXPECT) {
            return None;
        }
        socket.headers_mut().append(name, HeaderValue::from_bytes(given.value).ok()?);
    }
    Some(socket)
}

/// Accepts the line ends that httparse accepts: the carriage return may be missing.
fn has_empty_line(bytes: &[u8]) -> bool {
    let after = |at: usize| &bytes[at + 1..];
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| after(at));
    ends.any(|rest| rest.starts_with(b"\n") || rest.starts_with(b"\r\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOCKET: &str = "GET /ws/download/a?since=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";

    /// The result for a loop that gets the bytes in pieces.
    fn in_pieces(bytes: &[u8], sizes: &[usize]) -> (FirstRequest, usize) {
        let (mut seen, mut turn) = (0, 0);
        loop {
            let end = (seen + sizes[turn % sizes.len()]).min(bytes.len());
            match parse(&bytes[..end], seen) {
                FirstRequest::Partial if end < bytes.len() => (seen, turn) = (end, turn + 1),
                head => return (head, end),
            }
        }
    }

    proptest! {
        #[test]
        fn a_head_in_pieces_of_any_size_is_read_as_one_piece_is(sizes in prop::collection::vec(1usize..40, 1..6)) {
            let followed = [SOCKET.as_bytes(), b"\x89\x80\0\0\0\0"].concat();
            let (head, _) = in_pieces(&followed, &sizes);
            let FirstRequest::Socket(request, length) = head else { panic!("{head:?}") };
            prop_assert_eq!(length, SOCKET.len());
            prop_assert_eq!(request.uri().query(), Some("since=1"));
            prop_assert_eq!(request.headers().len(), 2);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 1..300), seen in 0usize..300) {
            parse(&bytes, seen.min(bytes.len()));
        }
    }

    #[test]
    fn what_a_loop_may_not_answer_is_hypers() {
        let with = |what: &str, instead: &str| SOCKET.replace(what, instead);
        for request in [
            with("GET", "POST"),
            with("/ws/download/a", "/api/status/a"),
            with("/ws/download/a", "http://a/ws/download/a"),
            with("HTTP/1.1", "HTTP/1.0"),
            with("Host: a", "Content-Length: 1"),
            with("Host: a", "Transfer-Encoding: chunked"),
            with("Host: a", "Expect: 100-continue"),
            with("Host: a", &"A: b\r\n".repeat(70)),
        ] {
            let head = parse(request.as_bytes(), 0);
            assert!(matches!(head, FirstRequest::Other), "{request}: {head:?}");
        }
        for request in [with("Host: a", "No colon"), with("HTTP/1.1", "HTTP/7"), "\u{16}\u{3}\u{1}".to_owned()] {
            let head = parse(request.as_bytes(), 0);
            assert!(matches!(head, FirstRequest::Malformed), "{request}: {head:?}");
        }
        assert!(matches!(parse(with("\r\n", "\n").as_bytes(), 0), FirstRequest::Socket(..)));
        let line_feeds = with("\r\n", "\n");
        assert!(matches!(in_pieces(line_feeds.as_bytes(), &[1]).0, FirstRequest::Socket(..)));
        assert!(matches!(parse(&SOCKET.as_bytes()[..SOCKET.len() - 1], 0), FirstRequest::Partial));
    }
}
