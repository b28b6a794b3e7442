//! An edge that stops: its clients leave one after the other, and the next edge receives them at that pace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use millrace_harness::wait::until;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    stack::{Options, Stack},
    support::SOON,
};

const DRAIN: Duration = Duration::from_secs(5);
const SOCKETS: usize = 500;
const STREAMS: usize = 200;
/// How much faster than evenly clients may leave.
const PACE_MAX: f64 = 1.5;

async fn draining_stack() -> Stack {
    Stack::start_with(Options { without_worker: true, drain: Some(DRAIN), ..Default::default() }).await
}

/// The longest time for which this process did not run: events during that time seem to arrive at once.
#[derive(Clone, Default)]
struct OwnGap(Arc<AtomicU64>);

impl OwnGap {
    fn watch() -> Self {
        let gap = Self::default();
        let longest = gap.0.clone();
        tokio::spawn(async move {
            const STEP: Duration = Duration::from_millis(10);
            loop {
                let began = Instant::now();
                sleep(STEP).await;
                let late = u64::try_from((began.elapsed() - STEP).as_millis()).unwrap_or(u64::MAX);
                longest.fetch_max(late, Ordering::Relaxed);
            }
        });
        gap
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// No second has more of the moments than an even spread over the drain has, and a half.
fn assert_spread(what: &str, mut moments: Vec<Instant>, gap: &OwnGap) {
    moments.sort();
    let window = Duration::from_secs(1);
    let most = moments.iter().map(|from| {
        let until = *from + window;
        moments.iter().filter(|moment| *moment >= from && **moment < until).count()
    });
    let most = most.max().expect("moments");
    let seen = (window + gap.longest()).as_secs_f64() / DRAIN.as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let bound = moments.len() as f64 * seen * PACE_MAX;
    eprintln!("{what}: at most {most} of {} in a second; {bound:.0} are allowed", moments.len());
    #[allow(clippy::cast_precision_loss)]
    let within = most as f64 <= bound;
    assert!(within, "{what}: {most} of {} within a second, not {bound:.0}", moments.len());
}

/// The times when a client's socket was closed, and when the other edge served it.
async fn client(here: String, there: String) -> (Instant, Instant) {
    let (mut socket, _) = tokio_tungstenite::connect_async(here).await.expect("a socket");
    loop {
        match timeout(Duration::from_secs(60), socket.next()).await.expect("a message in time") {
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!(frame.code, CloseCode::Restart, "{frame:?}");
                break;
            }
            Some(Ok(_)) => {}
            other => panic!("no close frame but {other:?}"),
        }
    }
    let closed = Instant::now();
    let (mut socket, _) = tokio_tungstenite::connect_async(there).await.expect("the other edge");
    let state = timeout(SOON, socket.next()).await.expect("the state").unwrap().unwrap();
    assert!(state.to_text().unwrap().contains("\"queued\""), "{state}");
    (closed, Instant::now())
}

/// Waits until a metric of the edge has this value.
async fn metric_is(stack: &Stack, name: &str, count: usize) {
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    until(&format!("{name} is {count}"), SOON, async || stack.metric(name).await >= count).await;
}

/// Readiness fails and the edge accepts no client while most clients are still connected.
async fn assert_closed_to_newcomers(stack: &Stack) {
    let url = format!("{}/readyz", stack.edge_admin);
    let deadline = Instant::now() + Duration::from_secs(1);
    while reqwest::get(&url).await.unwrap().status() != 503 {
        assert!(Instant::now() < deadline, "an edge that stops is still ready");
    }
    while TcpStream::connect(("127.0.0.1", stack.port())).await.is_ok() {
        assert!(Instant::now() < deadline, "an edge that stops still takes connections");
    }
}

#[tokio::test]
async fn sockets_of_an_edge_that_stops_are_closed_one_after_the_other_and_come_back_so_elsewhere() {
    let mut stack = draining_stack().await;
    let other = stack.another_edge().await;
    let id = stack.submit("/video.mp4").await;
    let there = format!("ws://127.0.0.1:{}/ws/download/{id}", other.port);
    let mut clients = JoinSet::new();
    for _ in 0..SOCKETS {
        clients.spawn(client(stack.ws_url(&id), there.clone()));
    }
    metric_is(&stack, "millrace_edge_sockets", SOCKETS).await;
    // Each has its state: the next messages are closes.
    metric_is(&stack, "millrace_edge_frames_sent_total", SOCKETS).await;

    let gap = OwnGap::watch();
    let began = Instant::now();
    stack.edge.request_stop();
    assert_closed_to_newcomers(&stack).await;
    let open = stack.metric("millrace_edge_sockets").await;
    #[allow(clippy::cast_precision_loss)]
    let half = SOCKETS as f64 / 2.0;
    assert!(open > half, "only {open} sockets are left after {:?}", began.elapsed());

    let moments = clients.join_all().await;
    let (closed, back): (Vec<_>, Vec<_>) = moments.into_iter().unzip();
    assert_spread("closed", closed, &gap);
    assert_spread("came back", back, &gap);
    let status = stack.edge.wait(Duration::from_secs(5)).await.expect("it leaves in time");
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < DRAIN + Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn event_streams_of_an_edge_that_stops_end_one_after_the_other_and_whole() {
    let mut stack = draining_stack().await;
    let id = stack.submit("/video.mp4").await;
    let path = format!("/api/download/{id}/events");
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let request = stack.api.request(reqwest::Method::GET, &path).header("accept", "text/event-stream");
        let response = request.send().await.expect("a stream");
        assert_eq!(response.status(), 200);
        streams.spawn(async move {
            let mut body = response.bytes_stream();
            let first = body.next().await.expect("the state").expect("the state");
            assert!(String::from_utf8_lossy(&first).contains("\"queued\""), "{first:?}");
            // A body that is cut off is an error.
            while let Some(chunk) = body.next().await {
                chunk.expect("the stream ends whole");
            }
            Instant::now()
        });
    }
    let gap = OwnGap::watch();
    let began = Instant::now();
    stack.edge.request_stop();
    assert_closed_to_newcomers(&stack).await;
    assert_spread("ended", streams.join_all().await, &gap);
    assert!(began.elapsed() > DRAIN / 2, "all have ended after {:?}", began.elapsed());
    let status = stack.edge.wait(SOON).await.expect("it leaves in time");
    assert!(status.success(), "{status}");
}
