//! `GET /api/download/{job_id}/file`: the target of `downloadUrl`.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use millrace_domain::{JobState, Stage, files::content_disposition, limits::SIGNED_URL_VALID};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::{app::App, path::Id};
use crate::http::problem::ApiError;

/// Redirects to a newly signed address, or serves the file itself, with ranges, if the storage is a folder.
pub async fn file(State(app): State<Arc<App>>, Id(id): Id, mut request: Request) -> Result<Response, ApiError> {
    let mut state = app.known(&id).await?;
    if state.stage != Stage::Completed {
        // The job may be completed, and the replica stale.
        state = app.jobs.snapshots.get_from_leader(&id).await?.ok_or(ApiError::UnknownJob)?;
    }
    let JobState { stage: Stage::Completed, file: Some(stored), .. } = state else {
        return Err(ApiError::NotCompleted);
    };
    let unavailable = |error: anyhow::Error| ApiError::StorageUnavailable(format!("{error:#}"));
    let method = request.method().clone();
    if let Some(url) = app.blobs.signed_url(method, &stored.key, SIGNED_URL_VALID).await.map_err(unavailable)? {
        let headers = [(header::LOCATION, url.to_string()), (header::CACHE_CONTROL, "no-store".to_owned())];
        return Ok((StatusCode::FOUND, headers).into_response());
    }
    let path = app.blobs.path(&stored.key).map_err(unavailable)?.ok_or(ApiError::FileGone)?;
    let mime = stored.content_type.parse().unwrap_or_else(|_| "application/octet-stream".parse().expect("a MIME type"));
    // Requests with another unit or several ranges get the whole file, which RFC 9110 permits.
    let is_one_range = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.starts_with("bytes=") && !v.contains(','));
    if !request.headers().get(header::RANGE).is_none_or(is_one_range) {
        request.headers_mut().remove(header::RANGE);
    }
    let file = ServeFile::new_with_mime(path, &mime);
    if let Some(validator) = request.headers_mut().remove(header::IF_RANGE)
        && !is_still(&file, &validator).await
    {
        request.headers_mut().remove(header::RANGE);
    }
    let served = file.oneshot(request).await;
    let mut response = match served {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => return Err(ApiError::FileGone),
        Ok(response) if response.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
            return Err(ApiError::RangeNotSatisfiable { file_size: stored.file_size });
        }
        Ok(response) if response.status() == StatusCode::PRECONDITION_FAILED => {
            return Err(ApiError::PreconditionFailed);
        }
        Ok(response) => response.map(Body::new),
        Err(infallible) => match infallible {},
    };
    let headers = response.headers_mut();
    if let Ok(disposition) = HeaderValue::from_str(&content_disposition(&stored.file_name)) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    // The bytes come from a foreign site: a browser must save them and not guess their type.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    Ok(response)
}

/// Whether the file still matches the client's `If-Range`: a date, or a strong entity tag.
async fn is_still(file: &ServeFile, validator: &HeaderValue) -> bool {
    let mut head = Request::new(Body::empty());
    *head.method_mut() = Method::HEAD;
    let Ok(served) = file.clone().oneshot(head).await;
    [header::ETAG, header::LAST_MODIFIED].iter().any(|name| served.headers().get(name) == Some(validator))
}
