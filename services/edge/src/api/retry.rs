//! `POST /api/download/{job_id}/retry`

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

/// Puts a failed or canceled job back into the queue, with a full budget of attempts. The job keeps its id, so its
/// watchers see it continue. Of two concurrent calls, the second finds the job in the queue and is refused.
pub async fn retry(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    let known = app.jobs.snapshots.get(&id).await?;
    let state = app.jobs.execute(&id, known, &Command::Retry, Patience::Bounded).await?;
    tracing::info!(job = %id, attempt = state.attempt, "job resubmitted");
    Ok((StatusCode::ACCEPTED, Json(JobStatus::new(&state, &app.config.public_base_url))).into_response())
}
