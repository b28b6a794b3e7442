//! The live feed for clients without WebSocket: `status` messages as server-sent events, resumed by `Last-Event-ID`.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use millrace_domain::{
    JobId, JobState,
    limits::{SINCE_DOUBT, WS_PING_INTERVAL},
};

use super::app::App;
use crate::{
    feed::{Frame, Watch},
    http::problem::ApiError,
};

const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;

/// How many streams were begun: it spreads their ends while the process drains.
#[derive(Clone, Default)]
pub struct Streams(Arc<AtomicU32>);

impl Streams {
    /// When a stream that begins now is to end because the process does. They end one after the other, as sockets do, so that
    /// their clients do not all come to the other edges at once.
    fn drained(&self, app: &App) -> impl Future<Output = ()> + use<> {
        // Multiples of the golden ratio: the streams that are still there are spread evenly, whichever have ended.
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let after = app.config.drain.mul_f64((f64::from(number) * GOLDEN_RATIO).fract());
        let shutdown = app.tasks.shutdown();
        async move {
            shutdown.cancelled().await;
            sleep(after).await;
        }
    }
}

/// Streams until the job's end. 204, which tells a browser not to come again, when the client has the end already.
pub async fn live(app: Arc<App>, streams: &Streams, id: JobId, headers: &HeaderMap) -> Result<Response, ApiError> {
    let claimed: u64 = match headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default()) {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| ApiError::InvalidSince)?,
    };
    let (state, seen) = seen(&app, &id, claimed).await?;
    if state.is_end() && seen >= state.seq {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = app.feed.follow(&id, seen);
    let frames = stream::unfold(Some((watch, seen)), |at| async move {
        let (watch, seen) = at?;
        let frame = next(&watch, seen).await;
        let event = Event::default().event("status").id(frame.seq.to_string()).data(frame.text());
        let next = (!frame.is_end).then_some((watch, frame.seq));
        Some((Ok::<_, Infallible>(event), next))
    });
    let frames = frames.take_until(streams.drained(&app));
    let keep_alive = KeepAlive::new().interval(WS_PING_INTERVAL);
    // Proxies otherwise gather what should be live.
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Sse::new(frames).keep_alive(keep_alive)).into_response())
}

/// The job's state, and what the client has seen of it: what it claims, or nothing if the log has not come so far. A
/// leader that was just elected may not have everything yet, so it is believed only after [`SINCE_DOUBT`].
async fn seen(app: &App, id: &JobId, claimed: u64) -> Result<(JobState, u64), ApiError> {
    let state = app.known(id).await?;
    if state.seq >= claimed {
        return Ok((state, claimed));
    }
    let until = Instant::now() + SINCE_DOUBT;
    loop {
        let is_late = Instant::now() >= until;
        let state = app.jobs.snapshots.get_from_leader(id).await?.ok_or(ApiError::UnknownJob)?;
        if state.seq >= claimed {
            return Ok((state, claimed));
        }
        if is_late {
            return Ok((state, 0));
        }
        sleep_until(until).await;
    }
}

/// The next frame that is newer than what the client has.
async fn next(watch: &Watch, seen: u64) -> Arc<Frame> {
    loop {
        let frame = watch.next().await;
        if frame.seq > seen {
            return frame;
        }
    }
}
