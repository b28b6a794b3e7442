//! `ws://HOST:3001/ws/download/{job_id}`: the handshake. What follows is in `sockets`.
//!
//! A loop of sockets answers the usual handshake itself, since a storm of reconnects is one handshake after the other.
//! Whatever is unusual or wrong about a request it leaves to hyper and the route here: one set of checks, one place
//! where an error becomes an answer.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::Upgraded;
use tungstenite::handshake::derive_accept_key;
use url::form_urlencoded;

use millrace_domain::JobId;

use crate::{
    App,
    admission::Permit,
    http::{
        problem::{ApiError, Id},
        server,
    },
    sockets::Admitted,
};

/// The path, before the job's id.
pub const PATH: &str = "/ws/download/";

/// A handshake that is to be answered with 101. Compression and other extensions that a client offers are not taken.
pub struct Handshake {
    /// The job that the client watches.
    pub id: JobId,
    /// What it has seen already.
    pub since: u64,
    /// The answer to its key.
    accept: String,
}

impl Handshake {
    /// Checks a request; its origin was checked already.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check<B>(app: &App, id: JobId, request: &http::Request<B>) -> Result<Self, ApiError> {
        let since = since(request.uri().query().unwrap_or_default())?;
        let accept = accept_key(request.headers())?;
        if app.tasks.shutdown().is_cancelled() {
            return Err(ApiError::Stopping);
        }
        Ok(Self { id, since, accept })
    }

    /// The handshake of a request that no hyper has seen; `None` when hyper is to answer it.
    pub fn of(app: &App, request: &http::Request<()>) -> Option<Self> {
        let id = request.uri().path().strip_prefix(PATH)?.parse().ok()?;
        app.origins.check(request.headers()).ok()?;
        Self::check(app, id, request).ok()
    }

    /// The answer, as it goes over the wire.
    pub fn answer(&self) -> Vec<u8> {
        let accept = &self.accept;
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        )
        .into_bytes()
    }
}

/// The route: checks the request, then upgrades it.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Extension(permit): Extension<Permit>,
    mut request: Request,
) -> Result<Response, ApiError> {
    if request.method() != Method::GET {
        // A route for GET is given HEAD as well.
        return Ok(([(header::ALLOW, "GET")], ApiError::MethodNotAllowed).into_response());
    }
    let Handshake { id, since, accept } = Handshake::check(&app, id, &request)?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await.map_err(anyhow::Error::from).and_then(|upgraded| admitted(upgraded, id, since, permit)) {
            Ok(admitted) => app.sockets.admit(admitted),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "a handshake was not completed"),
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
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

/// The answer to the client's key.
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

/// Takes the connection out of hyper.
fn admitted(upgraded: Upgraded, id: JobId, since: u64, permit: Permit) -> anyhow::Result<Admitted> {
    let (stream, early) = server::taken_out(upgraded)?;
    Ok(Admitted { stream: mio::net::TcpStream::from_std(stream), early, id, since, permit })
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
