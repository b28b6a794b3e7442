//! `GET /api/download/{job_id}/events`: the job's whole history as NDJSON, or live as SSE.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};

use millrace_domain::JobId;
use millrace_runtime::direct::Stored;

use super::{
    problem::{ApiError, job_id},
    sse,
};
use crate::App;

/// By what the client accepts.
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = job_id(&id)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") { sse::live(app, id, &headers).await } else { history(app, id).await }
}

async fn history(app: Arc<App>, id: JobId) -> Result<Response, ApiError> {
    // The first page decides on the status; the others follow as the client reads.
    let (first, more) = app.jobs.log.page(&id, 0).await?;
    if first.is_empty() {
        return Err(ApiError::UnknownJob);
    }
    let next = more.then(|| first.last().map_or(0, |stored| stored.seq));
    let rest = stream::try_unfold(next, move |after| {
        let (app, id) = (app.clone(), id.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let (page, more) = app.jobs.log.page(&id, after).await.map_err(std::io::Error::other)?;
            let next = page.last().filter(|_| more).map(|stored| stored.seq);
            Ok::<_, std::io::Error>(Some((page, next)))
        }
    });
    let pages = stream::iter([Ok(first)]).chain(rest);
    let body = Body::from_stream(pages.map_ok(|page| page.iter().flat_map(line).collect::<Bytes>()));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// The event as it was written, whatever its tag and fields, with its sequence.
fn line(stored: &Stored) -> Vec<u8> {
    let mut line = Map::new();
    line.insert("seq".into(), stored.seq.into());
    match serde_json::from_slice(&stored.payload) {
        Ok(Value::Object(event)) => line.extend(event.into_iter().filter(|(field, _)| field != "seq")),
        _ => drop(line.insert("type".into(), "undecodable".into())),
    }
    let mut line = serde_json::to_vec(&line).expect("string keys only");
    line.push(b'\n');
    line
}
