//! From the listener to HTTP: bounds that must hold before anything of a request is known.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use millrace_domain::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEAD_MAX, RETRY_AFTER_SECONDS};

use crate::metrics::Metrics;

/// How many connections there are, and from where.
#[derive(Clone)]
pub struct Admission(Arc<Counts>);

struct Counts {
    open: Mutex<Open>,
    total_max: usize,
    /// 0: no bound.
    address_max: usize,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; given back on drop.
#[derive(Clone)]
pub struct Permit {
    _place: Arc<Place>,
}

struct Place {
    admission: Admission,
    address: IpAddr,
}

impl Admission {
    /// Bounds for all connections and for those of one address (0: none).
    #[must_use]
    pub fn new(total_max: usize, address_max: usize) -> Self {
        Self(Arc::new(Counts { open: Mutex::default(), total_max, address_max }))
    }

    fn admit(&self, address: IpAddr) -> Option<Permit> {
        let Counts { open, total_max, address_max } = &*self.0;
        let mut open = open.lock().expect("no panic while held");
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if open.total >= *total_max || (*address_max > 0 && of_address >= *address_max) {
            return None;
        }
        open.total += 1;
        if *address_max > 0 {
            open.by_address.insert(address, of_address + 1);
        }
        Some(Permit { _place: Arc::new(Place { admission: self.clone(), address }) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.0.open.lock().expect("no panic while held");
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts until `stop`, then lets requests under way end within `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    admission: Admission,
    metrics: Metrics,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let cut = CancellationToken::new();
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: those that are open go on.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match admission.admit(peer.ip()) {
            Some(permit) => {
                let connection = connection(stream, peer, permit, router.clone(), metrics.clone(), stop.clone());
                requests.spawn(cut.clone().run_until_cancelled_owned(connection));
            }
            None => {
                metrics.connections_refused.inc();
                tokio::spawn(refuse(stream));
            }
        }
    }
    drop(listener);
    requests.close();
    // Who is still sending a request or reading an answer has so long to end.
    if timeout(drain, requests.wait()).await.is_err() {
        tracing::info!(connections = requests.len(), "connections that did not end are cut");
        cut.cancel();
        requests.wait().await;
    }
    Ok(())
}

/// Serves one connection until it ends or is upgraded; from the stop on, no further request of it.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    router: Router,
    metrics: Metrics,
    stop: CancellationToken,
) {
    // Small frames, each to be there at once. An error shows again at the first read.
    let _ = stream.set_nodelay(true);
    let service = router.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(permit.clone());
        request
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // From the accept, or the end of the request before, to the end of the headers.
        .header_read_timeout(HTTP_HEAD_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        if error.is_timeout() {
            metrics.heads_timed_out.inc();
        }
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
}

/// Answers 503 without reading the request.
async fn refuse(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{OVERLOADED}",
        OVERLOADED.len()
    );
    let answering = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What the client has sent is taken, lest the close become a reset that overtakes the answer.
        tokio::io::copy(&mut tokio::io::AsyncReadExt::take(&mut stream, 64 * 1024), &mut tokio::io::sink()).await
    };
    let _ = timeout(Duration::from_secs(2), answering).await;
}

const OVERLOADED: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Too many connections are open. Try again in a few seconds.","code":"too_many_connections"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_in_all_and_by_address_and_places_come_back() {
        let admission = Admission::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert!(admission.admit(a).is_none(), "the address has its share");
        let _third = admission.admit(b).unwrap();
        assert!(admission.admit(b).is_none(), "the edge is full");
        drop(first.clone());
        assert!(admission.admit(a).is_none(), "a clone is the same place");
        drop(first);
        assert!(admission.admit(b).is_some());
    }
}
