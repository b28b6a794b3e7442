//! All WebSockets of an edge, on a few threads that each serve many.
//!
//! Each loop accepts connections for itself. It reads their first request: a WebSocket handshake it answers, anything
//! else it hands to hyper. Why not a task per socket with axum's own WebSocket: see ARCHITECTURE.md, "Sockets".

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

/// The loops.
#[derive(Clone)]
pub struct Sockets {
    inboxes: Arc<[Arc<Inbox>]>,
    next: Arc<AtomicUsize>,
}

/// Loops that do not run yet.
pub struct Loops(Vec<(Poll, Arc<Inbox>)>);

impl Loops {
    /// Starts them on `listener`; each ends after [`Sockets::drain`].
    ///
    /// # Errors
    /// When the kernel gives no threads or no file descriptors.
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
                // Its clients would hear nothing any more, and nobody would notice: better to start anew.
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
    /// So many loops, which are to be started.
    ///
    /// # Errors
    /// When the kernel gives no epoll.
    pub fn new(loops: usize) -> anyhow::Result<(Self, Loops)> {
        let each = (0..loops).map(|_| {
            let poll = Poll::new().context("no epoll for the socket loop")?;
            let inbox = Inbox::new(poll.registry()).context("no waker for the socket loop")?;
            Ok((poll, Arc::new(inbox)))
        });
        let loops = each.collect::<anyhow::Result<Vec<_>>>()?;
        let inboxes = loops.iter().map(|(_, inbox)| inbox.clone()).collect();
        Ok((Self { inboxes, next: Arc::default() }, Loops(loops)))
    }

    /// Hands a connection to the loops, in turn.
    pub fn admit(&self, admitted: Admitted) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len();
        self.inboxes[turn].put(Message::Admit(Box::new(admitted)));
    }

    /// Accepts no more, and closes all sockets, spread over `lasts`; the loops end when none is left.
    pub fn drain(&self, lasts: Duration) {
        self.inboxes.iter().for_each(|inbox| inbox.put(Message::Drain(lasts)));
    }
}
