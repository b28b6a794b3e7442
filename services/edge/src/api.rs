//! HTTP on the clients' port.

pub mod idempotency;
mod path;
mod page;
mod submit;
mod status;
mod socket;
mod sse;
mod history;
mod cancel;
mod retry;
mod file;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};

use millrace_domain::limits::NATS_LOST_MAX;

use crate::{
    App,
    http::{origin, problem::ApiError},
};

/// Every route that clients have.
pub fn router(app: Arc<App>) -> Router {
    let cors = app.origins.cors();
    let jobs = Router::new()
        .route("/api/download", post(submit::submit))
        .route("/api/download/{job_id}", axum::routing::delete(cancel::cancel))
        .route("/api/download/{job_id}/retry", post(retry::retry))
        .route("/api/download/{job_id}/file", get(file::file))
        .route("/api/download/{job_id}/events", get(history::events))
        .route("/api/status/{job_id}", get(status::status))
        .route_layer(middleware::from_fn_with_state(app.clone(), while_connected));
    Router::new()
        .route("/", get(page::index))
        .merge(jobs)
        .route("/ws/download/{job_id}", get(socket::upgrade))
        .fallback(|| async { ApiError::NoSuchPath })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(cors)
        .layer(middleware::from_fn_with_state(app.clone(), origin::admit))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

/// Refuses at once what would wait in vain: without a connection nothing can be read or stored. While there is one, the log
/// may take as long as choosing a leader takes.
async fn while_connected(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::select! {
        biased;
        () = app.nats.lost_for(NATS_LOST_MAX) => Err(ApiError::LogUnavailable("the connection to NATS is lost".into())),
        response = next.run(request) => Ok(response),
    }
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}
