//! From the listener, which all loops of sockets share, to one of them, and from there, whatever is no WebSocket
//! handshake, to hyper: bounds that must hold before anything of a request is known.

use std::{
    collections::HashMap,
    io::Cursor,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use axum::{Router, extract::Request};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Handle,
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use millrace_domain::limits::{
    CLOSE_ANSWER_MAX, HTTP_HEAD_BYTES_MAX, HTTP_KEEP_ALIVE_MAX, REFUSAL_MAX, REFUSAL_READ_BYTES_MAX,
    REFUSALS_IN_FLIGHT_MAX,
};

use super::{
    keep_alive::{Head, Noticed, Timer},
    problem::ApiError,
};
use crate::{metrics::Metrics, sockets::Sockets};

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

/// A connection of which nothing was read yet.
pub struct Accepted {
    /// Non-blocking.
    pub stream: mio::net::TcpStream,
    /// Who it is.
    pub peer: SocketAddr,
    /// Its place.
    pub permit: Permit,
}

/// One loop's hold of the listener.
pub struct Acceptor {
    listener: mio::net::TcpListener,
    admission: Admission,
    http: Http,
}

impl Acceptor {
    /// Another hold of `listener`, which must not block, under the bounds of `admission`.
    ///
    /// # Errors
    /// When the kernel gives no file descriptor.
    pub fn new(listener: &std::net::TcpListener, admission: Admission, http: Http) -> std::io::Result<Self> {
        Ok(Self { listener: mio::net::TcpListener::from_std(listener.try_clone()?), admission, http })
    }

    /// What tells when connections wait. To be deregistered before it is dropped: the loops share what is beneath.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.listener
    }

    /// Takes the next connection; `None` when there was no place for it and it is told so.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub fn accept(&self) -> std::io::Result<Option<Accepted>> {
        let (stream, peer) = self.listener.accept()?;
        let Some(permit) = self.admission.admit(peer.ip()) else {
            self.http.metrics.connections_refused.inc();
            self.http.refuse(stream, &ApiError::TooManyConnections);
            return Ok(None);
        };
        Ok(Some(Accepted { stream, peer, permit }))
    }
}

/// Serves connections by hyper.
#[derive(Clone)]
pub struct Http {
    router: Router,
    metrics: Metrics,
    /// From then on no further request of a connection is served.
    stop: CancellationToken,
    cut: CancellationToken,
    requests: TaskTracker,
    refusals: Arc<Semaphore>,
    /// For whoever is on no thread of it.
    runtime: Handle,
}

/// What hyper reads of a connection: first what was read already.
type Resumed = io::Join<Noticed<io::Chain<Cursor<Vec<u8>>, OwnedReadHalf>>, OwnedWriteHalf>;

impl Http {
    /// Serves by `router` on this runtime, until `stop`.
    #[must_use]
    pub fn new(router: Router, metrics: Metrics, stop: CancellationToken) -> Self {
        let (cut, requests) = (CancellationToken::new(), TaskTracker::new());
        let refusals = Arc::new(Semaphore::new(REFUSALS_IN_FLIGHT_MAX));
        Self { router, metrics, stop, cut, requests, refusals, runtime: Handle::current() }
    }

    /// Serves one connection, of which `read` was read already, until it ends or is upgraded.
    pub fn serve(&self, accepted: Accepted, read: Vec<u8>) {
        let connection = connection(accepted, read, self.router.clone(), self.metrics.clone(), self.stop.clone());
        self.requests.spawn_on(self.cut.clone().run_until_cancelled_owned(connection), &self.runtime);
    }

    /// Tells a connection why it is not served; when many are being told already, it is just closed.
    pub fn refuse(&self, stream: mio::net::TcpStream, why: &ApiError) {
        if let Ok(place) = self.refusals.clone().try_acquire_owned() {
            let answer = why.last_answer();
            self.runtime.spawn(async move {
                refuse(OwnedFd::from(stream).into(), answer).await;
                drop(place);
            });
        }
    }

    /// Lets requests under way end within `drain`, and whoever was told last take the end.
    async fn end(self, drain: Duration) {
        self.requests.close();
        // Who is still sending a request or reading an answer has so long to end.
        if timeout(drain + CLOSE_ANSWER_MAX, self.requests.wait()).await.is_err() {
            tracing::info!(connections = self.requests.len(), "connections that did not end are cut");
            self.cut.cancel();
            self.requests.wait().await;
        }
    }
}

/// At the stop, has the loops accept no more and close their sockets, and lets requests under way end, both within
/// `drain`.
pub async fn drain(sockets: Sockets, http: Http, drain: Duration) -> anyhow::Result<()> {
    http.stop.cancelled().await;
    sockets.drain(drain);
    http.end(drain).await;
    Ok(())
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
        Err(error) => return tracing::warn!(%peer, %error, "a connection could not be registered"),
    };
    let service = router.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(permit.clone());
        request
    });
    let (reading, writing) = stream.into_split();
    let head = Head::default();
    let resumed: Resumed = io::join(Noticed::new(Cursor::new(read).chain(reading), head.clone()), writing);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timer(head.clone()))
        // From here, or the end of the request before, to the begin of the headers.
        .header_read_timeout(HTTP_KEEP_ALIVE_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(resumed), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        // First: told to stop before it has read, hyper would not even read what we have.
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
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
}

/// The bare connection of an upgraded one, and what the client has sent right behind its request.
pub fn taken_out(upgraded: Upgraded) -> anyhow::Result<(std::net::TcpStream, Vec<u8>)> {
    let parts =
        upgraded.downcast::<TokioIo<Resumed>>().map_err(|_| anyhow::anyhow!("the connection is no TCP stream"))?;
    let (reading, writing) = parts.io.into_inner().into_inner();
    let (read, reading) = reading.into_inner().into_inner();
    let unread = read.get_ref().get(usize::try_from(read.position())?..).unwrap_or_default();
    let stream = reading.reunite(writing).context("the halves of a connection")?;
    Ok((stream.into_std()?, [&parts.read_buf, unread].concat()))
}

/// Answers without reading the request.
async fn refuse(stream: std::net::TcpStream, answer: Vec<u8>) {
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let answering = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // What the client has sent is taken, lest the close become a reset that overtakes the answer.
        io::copy(&mut (&mut stream).take(REFUSAL_READ_BYTES_MAX), &mut io::sink()).await
    };
    let _ = timeout(REFUSAL_MAX, answering).await;
}

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
