//! `ws://HOST:3001/ws/download/{job_id}`: the handshake.
//!
//! An event loop answers the usual handshake itself, since a reconnect storm consists of handshakes. It passes unusual
//! and faulty requests to hyper and the route in `api/socket.rs`. Both use the checks in this file, and only the route
//! turns an error into a response.

use http::{HeaderMap, HeaderName, header};
use millrace_domain::JobId;
use tokio_util::sync::CancellationToken;
use tungstenite::handshake::derive_accept_key;
use url::form_urlencoded;

use crate::http::{origin::Origins, problem::ApiError};

/// The path, before the job's id.
pub const PATH: &str = "/ws/download/";

/// A valid handshake, to be answered with 101. The edge accepts no compression or other extension.
pub struct Handshake {
    /// The job that the client watches.
    pub id: JobId,
    /// The newest sequence that the client has seen.
    pub since: u64,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
}

/// Checks handshakes, for the loops and for the route.
#[derive(Clone)]
pub struct Handshakes {
    origins: Origins,
    stopping: CancellationToken,
}

impl Handshakes {
    /// Accepts handshakes from pages of allowed `origins`, until `stopping`.
    #[must_use]
    pub const fn new(origins: Origins, stopping: CancellationToken) -> Self {
        Self { origins, stopping }
    }

    /// Checks a request whose origin is already checked.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check<B>(&self, id: JobId, request: &http::Request<B>) -> Result<Handshake, ApiError> {
        let since = since(request.uri().query().unwrap_or_default())?;
        let accept = accept_key(request.headers())?;
        if self.stopping.is_cancelled() {
            return Err(ApiError::Stopping);
        }
        Ok(Handshake { id, since, accept })
    }

    /// The handshake in a first request; `None` if hyper must answer the request.
    pub fn of(&self, request: &http::Request<()>) -> Option<Handshake> {
        let id = request.uri().path().strip_prefix(PATH)?.parse().ok()?;
        self.origins.check(request.headers()).ok()?;
        self.check(id, request).ok()
    }
}

impl Handshake {
    /// The response in bytes.
    pub fn answer(&self) -> Vec<u8> {
        let accept = &self.accept;
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        )
        .into_bytes()
    }
}

/// The sequence that the client has seen, 0 for none.
fn since(query: &str) -> Result<u64, ApiError> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "since");
    match (given.next(), given.next()) {
        (None, _) => Ok(0),
        (Some((_, text)), None) if text.is_empty() => Ok(0),
        (Some((_, text)), None) => text.parse().map_err(|_| ApiError::InvalidSince),
        (Some(_), Some(_)) => Err(ApiError::InvalidSince),
    }
}

/// The `Sec-WebSocket-Accept` for the client's key.
fn accept_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let has = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(ApiError::UpgradeRequired);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(ApiError::MalformedHandshake)?;
    // 16 bytes in base64.
    let is_key = key.len() == 24 && key.as_bytes().ends_with(b"==");
    if !is_key || !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::MalformedHandshake);
    }
    Ok(derive_accept_key(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_one_whole_number_or_nothing() {
        for (query, expected) in [("", 0), ("since=", 0), ("since=7", 7), ("a=b&since=7&c", 7), ("since=%37", 7)] {
            assert_eq!(since(query).ok(), Some(expected), "{query}");
        }
        for query in ["since=soon", "since=-1", "since=1&since=2", "since=1.5", "since=99999999999999999999"] {
            assert!(since(query).is_err(), "{query}");
        }
    }
}
