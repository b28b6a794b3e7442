//! `GET /api/download/{job_id}/events`: the job's whole history as NDJSON, or live as SSE.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use millrace_domain::{JobId, subjects};
use millrace_runtime::direct::Stored;
use serde_json::{Map, Value};

use super::{
    app::App,
    path::Id,
    sse::{self, Streams},
};
use crate::http::problem::ApiError;

/// Answers with SSE if the client accepts it by name, else with NDJSON.
pub async fn events(
    State(app): State<Arc<App>>,
    Extension(streams): Extension<Streams>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if accepts_events(&headers) { sse::live(app, &streams, id, &headers).await } else { history(app, id).await }
}

/// Whether `Accept` names `text/event-stream`, with a quality above 0.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/event-stream"))
            && !parts.any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0)
            })
    })
}

async fn history(app: Arc<App>, id: JobId) -> Result<Response, ApiError> {
    // Two pages decide the status: the second comes from the leader unless the first was full. So a history of usual
    // length is known to be whole before the status is sent. Further pages follow as the client reads.
    let mut log = app.jobs.log.read(subjects::job_filter(&id), 0);
    let first = log.next_page_or_leaders().await?;
    if first.is_empty() {
        return Err(ApiError::UnknownJob);
    }
    let second = log.next_page_or_leaders().await?;
    let rest = stream::try_unfold(log, |mut log| async move {
        let page = log.next_page_or_leaders().await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(Some((page, log)).filter(|(page, _)| !page.is_empty()))
    });
    let further = if second.is_empty() { 0 } else { usize::MAX };
    let pages = stream::iter([Ok(first), Ok(second)]).chain(rest.take(further));
    let body = Body::from_stream(pages.map_ok(|page| page.iter().flat_map(line).collect::<Bytes>()));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// The event as stored, with all of its fields even if its type is unknown, and its sequence.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sent_to_who_accepts_them_by_name() {
        for (accept, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("application/json, text/event-stream;q=0.5", true),
            ("text/event-stream;q=0", false),
            ("text/event-stream; Q=0.000, */*", false),
            ("text/event-streams", false),
            ("*/*", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepts_events(&headers), expected, "{accept}");
        }
    }
}
