//! Serves all WebSockets of an edge on a few threads, each an event loop for many sockets.
//!
//! Each loop accepts connections and reads their first request. It answers a WebSocket handshake itself, and passes any
//! other request to hyper. `services/edge/README.md` ("Sockets") explains why this is not a task per socket with axum's
//! WebSocket.

mod acceptor;
mod registration;
mod inbox;
mod event_loop;
mod session;
mod outbox;
mod drain;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use mio::{Interest, Poll};

use self::{
    acceptor::{Acceptor, LISTENER},
    event_loop::{EventLoop, lobby::Lobby},
    inbox::{Inbox, Message},
};
pub use self::{inbox::Admitted, registration::Unregistered};
use crate::{admission::Admission, feed::Feed, http::server::Http, metrics::Metrics, websocket::handshake::Handshakes};

/// The event loops, as seen by other tasks.
#[derive(Clone)]
pub struct Sockets {
    inboxes: Arc<[Arc<Inbox>]>,
    next: Arc<AtomicUsize>,
}

/// Event loops that do not run yet.
pub struct Loops(Vec<(Poll, Arc<Inbox>)>);

impl Loops {
    /// Starts one thread per loop on `listener`; each ends after [`Sockets::drain`].
    ///
    /// # Errors
    /// The system has no threads or file descriptors left.
    pub fn start(
        self,
        listener: &TcpListener,
        admission: &Admission,
        handshakes: &Handshakes,
        http: &Http,
        feed: &Feed,
        metrics: &Metrics,
    ) -> anyhow::Result<Vec<JoinHandle<()>>> {
        let start = |(number, (poll, inbox)): (usize, (Poll, Arc<Inbox>))| -> anyhow::Result<JoinHandle<()>> {
            let mut acceptor = Acceptor::new(listener, admission.clone())?;
            poll.registry().register(acceptor.source(), LISTENER, Interest::READABLE)?;
            let lobby = Lobby::new(acceptor, handshakes.clone(), http.clone(), metrics.clone());
            let event_loop = EventLoop::new(poll, inbox, lobby, feed.clone(), metrics.clone());
            let run = move || {
                // A dead loop would leave its clients without states and without a close: abort, so that the process is
                // restarted.
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| event_loop.run())) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, "socket loop failed; aborting the process");
                        std::process::abort();
                    }
                    Err(_) => std::process::abort(),
                }
            };
            Ok(std::thread::Builder::new().name(format!("sockets-{number}")).spawn(run)?)
        };
        self.0.into_iter().enumerate().map(start).collect()
    }
}

impl Sockets {
    /// Creates `loops` event loops; the caller starts them.
    ///
    /// # Errors
    /// The system has no file descriptors left.
    pub fn new(loops: usize) -> anyhow::Result<(Self, Loops)> {
        let each = (0..loops).map(|_| {
            let poll = Poll::new().context("cannot create the epoll of a socket loop")?;
            let inbox = Inbox::new(poll.registry()).context("cannot create the waker of a socket loop")?;
            Ok((poll, Arc::new(inbox)))
        });
        let loops = each.collect::<anyhow::Result<Vec<_>>>()?;
        let inboxes = loops.iter().map(|(_, inbox)| inbox.clone()).collect();
        Ok((Self { inboxes, next: Arc::default() }, Loops(loops)))
    }

    /// Passes a connection to the next loop, round robin.
    pub fn admit(&self, admitted: Admitted) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len();
        self.inboxes[turn].put(Message::Admit(Box::new(admitted)));
    }

    /// Stops accepting and closes all sockets, spread over `lasts`. Each loop ends when it has no socket left.
    pub fn drain(&self, lasts: Duration) {
        self.inboxes.iter().for_each(|inbox| inbox.put(Message::Drain(lasts)));
    }
}
