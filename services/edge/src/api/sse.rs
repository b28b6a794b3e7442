//! The live feed for clients without WebSocket: `status` messages as server-sent events, resumed by `Last-Event-ID`.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{StreamExt, stream};
use millrace_domain::{JobId, JobState, limits::WS_PING_INTERVAL};
use tokio::time::{sleep, sleep_until};

use super::app::App;
use crate::{
    feed::{Claim, Frame, Verdict, Watch},
    http::problem::ApiError,
};

const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;

/// Counts the streams that began; the number spreads their ends over the drain.
#[derive(Clone, Default)]
pub struct Streams(Arc<AtomicU32>);

impl Streams {
    /// Resolves when a stream that begins now must end because the process stops. The streams end one after the other,
    /// as sockets do, so that their clients do not all reconnect to the other edges at once.
    fn drained(&self, app: &App) -> impl Future<Output = ()> + use<> {
        // Multiples of the golden ratio spread the remaining streams evenly, whichever streams have ended before.
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let after = app.config.drain.mul_f64((f64::from(number) * GOLDEN_RATIO).fract());
        let shutdown = app.tasks.shutdown();
        async move {
            shutdown.cancelled().await;
            sleep(after).await;
        }
    }
}

/// Streams until the job's end. If the client has the end already, the status is 204, on which a browser does not
/// reconnect.
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
    // Without these headers a proxy may buffer the stream.
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Sse::new(frames).keep_alive(keep_alive)).into_response())
}

/// The job's state, and the sequence that the client has seen: its claim, or 0 if the leader refutes the claim.
async fn seen(app: &App, id: &JobId, claimed: u64) -> Result<(JobState, u64), ApiError> {
    let mut claim = Claim::default();
    let (mut state, mut is_leaders) = (app.known(id).await?, false);
    while state.seq < claimed {
        match claim.older(is_leaders, Instant::now()) {
            Verdict::Refuted => return Ok((state, 0)),
            Verdict::Doubt => {}
            Verdict::Wait => {
                if let Some(due) = claim.due() {
                    sleep_until(due.into()).await;
                }
                claim.ask(Instant::now());
            }
        }
        state = app.jobs.snapshots.get_from_leader(id).await?.ok_or(ApiError::UnknownJob)?;
        is_leaders = true;
    }
    Ok((state, claimed))
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
