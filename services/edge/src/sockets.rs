//! All WebSockets of an edge, on a few threads that each serve many.
//!
//! Each loop accepts connections for itself. It reads their first request: a WebSocket handshake it answers, anything
//! else it hands to hyper. Why not a task per socket with axum's own WebSocket: see ARCHITECTURE.md, "Sockets".

mod acceptor;
mod drain;
mod event_loop;
mod outbox;
mod session;

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use millrace_domain::JobId;
use mio::{Interest, Poll, Token, Waker, net::TcpStream};

use crate::{
    admission::{Admission, Permit},
    api::app::App,
    feed::{Frame, Watcher},
    http::server::Http,
};
use acceptor::Acceptor;
use event_loop::EventLoop;

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
/// What is counted when a client goes away without a close frame.
const CODE_ABNORMAL: u16 = 1006;
/// What is counted when a client's close frame has no code.
pub const CODE_NONE: u16 = 1005;

/// The metrics' label of a close code. Clients choose theirs, so all that are not expected are one.
const fn label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1005 => "1005",
        1006 => "1006",
        1007 => "1007",
        1008 => "1008",
        1012 => "1012",
        1013 => "1013",
        4404 => "4404",
        _ => "other",
    }
}

/// A connection after its handshake.
pub struct Admitted {
    /// It was read until nothing was left, or will tell that there is something.
    pub stream: TcpStream,
    /// What the client sent right behind its handshake.
    pub early: Vec<u8>,
    /// The job that it watches.
    pub id: JobId,
    /// What it has seen already.
    pub since: u64,
    /// Its place among the connections.
    pub permit: Permit,
}

enum Message {
    Admit(Box<Admitted>),
    State(Arc<Frame>),
    Drain(Duration),
}

/// What waits for a loop.
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    waker: Waker,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CloseAnswer {
    /// The client is to answer our close.
    Await,
    /// Ours is the answer.
    Is,
}

/// The loops.
#[derive(Clone)]
pub struct Sockets {
    inboxes: Arc<[Arc<Inbox>]>,
    next: Arc<AtomicUsize>,
}

impl Inbox {
    fn put(&self, message: Message) {
        let mut messages = self.messages.lock().expect("no panic while held");
        messages.push(message);
        let first = messages.len() == 1;
        drop(messages);
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a socket loop could not be woken");
        }
    }

    fn take(&self, into: &mut Vec<Message>) {
        std::mem::swap(&mut *self.messages.lock().expect("no panic while held"), into);
    }
}

impl Watcher for Inbox {
    fn put(&self, frame: Arc<Frame>) {
        Self::put(self, Message::State(frame));
    }
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
        app: &Arc<App>,
        listener: &TcpListener,
        admission: &Admission,
        http: &Http,
    ) -> anyhow::Result<Vec<JoinHandle<()>>> {
        let start = |(number, (poll, inbox)): (usize, (Poll, Arc<Inbox>))| -> anyhow::Result<JoinHandle<()>> {
            let mut acceptor = Acceptor::new(listener, admission.clone(), http.clone(), app.metrics.clone())?;
            poll.registry().register(acceptor.source(), LISTENER, Interest::READABLE)?;
            let event_loop = EventLoop::new(poll, inbox, app.clone(), acceptor, http.clone());
            let run = move || {
                // Its clients would hear nothing any more, and nobody would notice: better to start anew.
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| event_loop.run())) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, "a socket loop failed");
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
            let waker = Waker::new(poll.registry(), WAKER).context("no waker for the socket loop")?;
            Ok((poll, Arc::new(Inbox { messages: Mutex::default(), waker })))
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
