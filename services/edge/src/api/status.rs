//! `GET /api/status/{job_id}`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use millrace_domain::wire::JobStatus;

use super::{app::App, path::Id};
use crate::http::problem::ApiError;

/// The job's state as it is now.
pub async fn status(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    let state = app.known(&id).await?;
    let status = JobStatus::new(&state, &app.config.public_base_url);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(status)).into_response())
}
