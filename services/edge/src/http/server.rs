//! Serves the connections that the event loops pass on to hyper, within its bounds.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use millrace_domain::limits::{
    CLOSE_ANSWER_MAX, HTTP_HEAD_BYTES_MAX, HTTP_KEEP_ALIVE_MAX, REFUSAL_MAX, REFUSAL_READ_BYTES_MAX,
    REFUSALS_IN_FLIGHT_MAX,
};
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    keep_alive::{HeadTimer, Timer},
    problem::ApiError,
    resumed::Resumed,
};
use crate::{admission::Accepted, metrics::Metrics};

/// Serves connections by hyper.
#[derive(Clone)]
pub struct Http {
    router: Router,
    metrics: Metrics,
    /// Once canceled, a connection serves no further request.
    stop: CancellationToken,
    cut: CancellationToken,
    requests: TaskTracker,
    refusals: Arc<Semaphore>,
    /// For callers outside the runtime: the event loops.
    runtime: Handle,
}

impl Http {
    /// Serves by `router` on this runtime, until `stop`.
    #[must_use]
    pub fn new(router: Router, metrics: Metrics, stop: CancellationToken) -> Self {
        let (cut, requests) = (CancellationToken::new(), TaskTracker::new());
        let refusals = Arc::new(Semaphore::new(REFUSALS_IN_FLIGHT_MAX));
        Self { router, metrics, stop, cut, requests, refusals, runtime: Handle::current() }
    }

    /// Serves one connection until it ends or is upgraded; `read` was read from it already.
    pub fn serve(&self, accepted: Accepted, read: Vec<u8>) {
        let connection = connection(accepted, read, self.router.clone(), self.metrics.clone(), self.stop.clone());
        self.requests.spawn_on(self.cut.clone().run_until_cancelled_owned(connection), &self.runtime);
    }

    /// Sends the reason for a refusal and closes the connection; closes it at once when many refusals are in flight.
    pub fn refuse(&self, stream: mio::net::TcpStream, why: &ApiError) {
        if let Ok(place) = self.refusals.clone().try_acquire_owned() {
            let answer = why.last_answer();
            self.runtime.spawn(async move {
                refuse(OwnedFd::from(stream).into(), answer).await;
                drop(place);
            });
        }
    }

    /// Lets requests in flight end within `drain`, and clients read the last responses.
    pub async fn end(self, drain: Duration) {
        self.requests.close();
        // This includes time for clients that are still sending a request or reading a response.
        if timeout(drain + CLOSE_ANSWER_MAX, self.requests.wait()).await.is_err() {
            tracing::info!(connections = self.requests.len(), "closing connections that outlived the drain");
            self.cut.cancel();
            self.requests.wait().await;
        }
    }
}

async fn connection(
    Accepted { stream, peer, permit }: Accepted,
    read: Vec<u8>,
    router: Router,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let stream = match TcpStream::from_std(OwnedFd::from(stream).into()) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%peer, %error, "cannot register connection with the runtime"),
    };
    let service = router.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(permit.clone());
        request
    });
    let head = HeadTimer::default();
    let resumed = Resumed::new(read, stream, head.clone());
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timer(head.clone()))
        // From here, or from the end of the previous request, to the first byte of the head.
        .header_read_timeout(HTTP_KEEP_ALIVE_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(resumed), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        // Polled first: a hyper that shuts down before its first read would ignore the bytes that we have read.
        biased;
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        if error.is_timeout() && head.has_begun() {
            metrics.heads_timed_out.inc();
        }
        tracing::debug!(%peer, %error, "connection ended with an error");
    }
}

/// Takes the TCP stream out of an upgraded connection, with the bytes that the client sent after its request.
pub fn taken_out(upgraded: Upgraded) -> anyhow::Result<(std::net::TcpStream, Vec<u8>)> {
    let parts =
        upgraded.downcast::<TokioIo<Resumed>>().map_err(|_| anyhow::anyhow!("connection is not a TCP stream"))?;
    let (unread, stream) = parts.io.into_inner().into_parts();
    Ok((stream.into_std()?, [parts.read_buf, unread].concat()))
}

/// Sends the response without parsing a request.
async fn refuse(stream: std::net::TcpStream, answer: Vec<u8>) {
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let answering = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Read what the client has sent: closing with unread bytes sends a reset that may overtake the response.
        io::copy(&mut (&mut stream).take(REFUSAL_READ_BYTES_MAX), &mut io::sink()).await
    };
    let _ = timeout(REFUSAL_MAX, answering).await;
}
