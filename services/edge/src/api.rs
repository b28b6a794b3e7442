//! The routes of the HTTP API, one file each.

pub mod app;
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

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderName, Method, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use millrace_domain::limits::NATS_LOST_MAX;
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::{app::App, idempotency::IDEMPOTENCY_KEY, sse::Streams};
use crate::{
    http::{
        origin::{self, Origins},
        problem::ApiError,
    },
    metrics::Status,
};

/// All routes of the clients' port.
pub fn router(app: Arc<App>) -> Router {
    let jobs = Router::new()
        .route("/api/download", post(submit::submit))
        .route("/api/download/{job_id}", axum::routing::delete(cancel::cancel))
        .route("/api/download/{job_id}/retry", post(retry::retry))
        .route("/api/download/{job_id}/file", get(file::file))
        .route("/api/download/{job_id}/events", get(history::events).layer(Extension(Streams::default())))
        .route("/api/status/{job_id}", get(status::status))
        .route_layer(middleware::from_fn_with_state(app.clone(), while_connected));
    Router::new()
        .route("/", get(page::index))
        .merge(jobs)
        .route("/ws/download/{job_id}", get(socket::upgrade))
        .fallback(|| async { ApiError::NoSuchPath })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(cors(app.origins.clone()))
        .layer(middleware::from_fn_with_state(app.origins.clone(), origin::admit))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

/// Fails a request once the connection to NATS is lost, since nothing can be read or stored without it. While the
/// connection stands, a request may wait for as long as a leader election takes.
async fn while_connected(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::select! {
        biased;
        () = app.nats.lost_for(NATS_LOST_MAX) => Err(ApiError::LogUnavailable("the connection to NATS is lost".into())),
        response = next.run(request) => Ok(response),
    }
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.metrics.requests.of(&Status(response.status())).inc();
    response
}

/// Lets pages of allowed origins read the responses.
fn cors(origins: Origins) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| origins.allows(origin)))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            IDEMPOTENCY_KEY,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([
            header::LOCATION,
            header::RETRY_AFTER,
            header::CONTENT_DISPOSITION,
            header::CONTENT_RANGE,
            header::ACCEPT_RANGES,
            header::ETAG,
            header::ALLOW,
        ])
        .max_age(Duration::from_secs(600))
}
