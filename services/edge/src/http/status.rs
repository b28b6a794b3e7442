//! `GET /api/status/{job_id}`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use millrace_domain::wire::JobStatus;

use super::problem::{ApiError, job_id};
use crate::App;

/// The job's state as it is now.
pub async fn status(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let state = app.jobs.snapshots.get(&job_id(&id)?).await?.ok_or(ApiError::UnknownJob)?;
    let status = JobStatus::new(&state, &app.config.public_base_url);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(status)).into_response())
}
