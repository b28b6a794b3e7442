//! `POST /api/download`

use std::sync::Arc;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use millrace_domain::{
    Command, JobId, Refusal, Submission,
    limits::{HTTP_BODY_BYTES_MAX, HTTP_BODY_MAX},
    wire::JobStatus,
};
use millrace_runtime::jobs::{ExecuteError, Patience};
use serde_json::Value;
use tokio::time::timeout;

use super::{app::App, idempotency::Key};
use crate::http::problem::ApiError;

/// Stores a job. 202 means stored: from then on every edge serves it.
pub async fn submit(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    if !is_json(&headers) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let key = Key::of(&headers)?;
    let submission = parse(&read(body).await?)?;
    let fresh = JobId::from_entropy(rand::random());
    let id = match &key {
        None => fresh,
        Some(key) => app.keys.reserve(key, &submission, fresh).await?,
    };
    let state = match app.jobs.execute(&id, None, &Command::Submit(submission), Patience::Bounded).await {
        // A repeat: return the job's current state.
        Err(ExecuteError::Refused(Refusal::Exists)) => app.known(&id).await?,
        outcome => {
            let state = outcome?;
            tracing::info!(job = %id, url = state.submission.url.without_query(), "job submitted");
            state
        }
    };
    let location = [(header::LOCATION, format!("{}/api/status/{id}", path_of(&app.config.public_base_url)))];
    let status = JobStatus::new(&state, &app.config.public_base_url);
    Ok((StatusCode::ACCEPTED, location, Json(status)).into_response())
}

/// The path of the public base URL, empty unless a proxy serves the edges under one.
fn path_of(public_base_url: &str) -> &str {
    let rest = public_base_url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |at| &rest[at..])
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, HTTP_BODY_BYTES_MAX).collect();
    match timeout(HTTP_BODY_MAX, body).await {
        Err(_) => Err(ApiError::BodyTooSlow),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge),
        Ok(Err(error)) => Err(ApiError::MalformedBody(error.to_string())),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Reads field by field, so that each field has an error of its own.
fn parse(body: &[u8]) -> Result<Submission, ApiError> {
    let body: Value = serde_json::from_slice(body).map_err(|error| ApiError::MalformedBody(error.to_string()))?;
    let Value::Object(body) = body else { return Err(ApiError::MalformedBody("it is no object".into())) };
    let url = body.get("url").and_then(Value::as_str).ok_or(ApiError::MissingUrl)?;
    let url = url.parse().map_err(ApiError::InvalidUrl)?;
    let quality = match body.get("quality") {
        None | Some(Value::Null) => None,
        Some(quality) => {
            let text = quality.as_str().unwrap_or_default();
            Some(text.parse().map_err(ApiError::InvalidQuality)?)
        }
    };
    Ok(Submission { url, quality })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_public_address_is_kept() {
        for (base, path) in
            [("http://a", ""), ("https://a:8443", ""), ("https://a/videos", "/videos"), ("http://a/b/c", "/b/c")]
        {
            assert_eq!(path_of(base), path, "{base}");
        }
    }
}
