//! `ws://HOST:3001/ws/download/{job_id}`.

mod session;

use std::sync::Arc;

use axum::{
    extract::{
        Path, Query, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use millrace_domain::limits::WS_FRAME_BYTES_MAX;

use crate::{
    App,
    http::problem::{ApiError, job_id},
};

/// The query of the endpoint.
#[derive(Deserialize)]
pub struct Since {
    /// The client has seen this sequence.
    since: Option<String>,
}

/// Checks the request, then upgrades it.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(Since { since }): Query<Since>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let id = job_id(&id)?;
    let since = match since.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| ApiError::InvalidSince)?,
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(WebSocketUpgradeRejection::InvalidConnectionHeader(_) | WebSocketUpgradeRejection::InvalidUpgradeHeader(_)) => {
            return Err(ApiError::UpgradeRequired);
        }
        Err(rejection) => return Ok(rejection.into_response()),
    };
    if app.tasks.shutdown().is_cancelled() {
        return Err(ApiError::Stopping);
    }
    let tasks = app.tasks.clone();
    Ok(upgrade
        // Small frames both ways: tungstenite's own defaults are 128 KiB a socket and no bound on what waits.
        .max_message_size(WS_FRAME_BYTES_MAX)
        .max_frame_size(WS_FRAME_BYTES_MAX)
        .read_buffer_size(WS_FRAME_BYTES_MAX)
        .write_buffer_size(0)
        .max_write_buffer_size(256 * 1024)
        .on_upgrade(move |socket| async move { tasks.track(session::run(app, id, since, socket)).await }))
}
