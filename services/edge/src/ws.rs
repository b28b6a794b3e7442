//! `ws://HOST:3001/ws/download/{job_id}`: the handshake. What follows is in `sockets`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use millrace_domain::JobId;

use crate::{
    App,
    accept::Permit,
    http::problem::{ApiError, Id},
    sockets::Admitted,
};

/// The query of the endpoint.
#[derive(Deserialize)]
pub struct Since {
    /// The client has seen this sequence.
    since: Option<String>,
}

/// Checks the request, then upgrades it. Compression and other extensions that a client offers are not taken.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Id(id): Id,
    query: Result<Query<Since>, QueryRejection>,
    Extension(permit): Extension<Permit>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let Ok(Query(Since { since })) = query else { return Err(ApiError::InvalidSince) };
    let since = match since.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| ApiError::InvalidSince)?,
    };
    if request.method() != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let accept = accept_key(request.headers())?;
    if app.tasks.shutdown().is_cancelled() {
        return Err(ApiError::Stopping);
    }
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
    let parts =
        upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| anyhow::anyhow!("the connection is no TCP stream"))?;
    Ok(Admitted { stream: parts.io.into_inner().into_std()?, early: parts.read_buf.to_vec(), id, since, permit })
}
