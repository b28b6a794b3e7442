//! `ws://HOST:3001/ws/download/{job_id}`: a handshake that an event loop passes to hyper: on a kept-alive connection,
//! or one that gets an error response.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::Upgraded;
use millrace_domain::JobId;

use super::{app::App, path::Id};
use crate::{
    admission::Permit,
    http::{problem::ApiError, server},
    sockets::{Admitted, Unregistered},
    websocket::handshake::Handshake,
};

/// The route: checks the request, then upgrades it.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Extension(permit): Extension<Permit>,
    mut request: Request,
) -> Result<Response, ApiError> {
    if request.method() != Method::GET {
        // axum routes HEAD to a GET route as well.
        return Ok(([(header::ALLOW, "GET")], ApiError::MethodNotAllowed).into_response());
    }
    let Handshake { id, since, accept } = app.handshakes.check(id, &request)?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await.map_err(anyhow::Error::from).and_then(|upgraded| admitted(upgraded, id, since, permit)) {
            Ok(admitted) => app.sockets.admit(admitted),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot complete handshake"),
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Takes the connection out of hyper.
fn admitted(upgraded: Upgraded, id: JobId, since: u64, permit: Permit) -> anyhow::Result<Admitted> {
    let (stream, early) = server::taken_out(upgraded)?;
    Ok(Admitted { connection: Unregistered(mio::net::TcpStream::from_std(stream)), early, id, since, permit })
}
