//! HTTP on the clients' port.

mod cancel;
mod file;
mod history;
pub mod idempotency;
pub mod origin;
mod page;
pub mod problem;
mod retry;
mod sse;
mod status;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};

use crate::{App, ws};

/// Every route that clients have.
pub fn router(app: Arc<App>) -> Router {
    let cors = app.origins.cors();
    Router::new()
        .route("/", get(page::index))
        .route("/api/download", post(submit::submit))
        .route("/api/download/{job_id}", axum::routing::delete(cancel::cancel))
        .route("/api/download/{job_id}/retry", post(retry::retry))
        .route("/api/download/{job_id}/file", get(file::file))
        .route("/api/download/{job_id}/events", get(history::events))
        .route("/api/status/{job_id}", get(status::status))
        .route("/ws/download/{job_id}", get(ws::upgrade))
        .fallback(|| async { problem::ApiError::NoSuchPath })
        .method_not_allowed_fallback(|| async { problem::ApiError::MethodNotAllowed })
        .layer(cors)
        .layer(middleware::from_fn_with_state(app.clone(), origin::admit))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}
