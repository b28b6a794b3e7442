//! `DELETE /api/download/{job_id}`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use millrace_domain::{Command, wire::JobStatus};
use millrace_runtime::jobs::Patience;

use super::{app::App, path::Id};
use crate::http::problem::ApiError;

/// Cancels the job. Its worker detects that by itself.
pub async fn cancel(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    let known = app.jobs.snapshots.get(&id).await?;
    let state = app.jobs.execute(&id, known, &Command::Cancel, Patience::Bounded).await?;
    tracing::info!(job = %id, "job canceled");
    Ok((StatusCode::ACCEPTED, Json(JobStatus::new(&state, &app.config.public_base_url))).into_response())
}
