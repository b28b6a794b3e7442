//! What others have for a loop: connections whose handshake was answered, states, and the end.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace_domain::JobId;
use mio::{Registry, Token, Waker};

use super::registration::Unregistered;
use crate::{
    admission::Permit,
    feed::{Frame, Watcher},
};

/// By which an inbox wakes its loop.
pub const WAKER: Token = Token(usize::MAX);

/// A connection after its handshake.
pub struct Admitted<C = Unregistered> {
    /// It was read until nothing was left, or its poll will report that there is something.
    pub connection: C,
    /// What the client sent right behind its handshake.
    pub early: Vec<u8>,
    /// The job that it watches.
    pub id: JobId,
    /// What it has seen already.
    pub since: u64,
    /// Its place among the connections.
    pub permit: Permit,
}

/// What a loop is to do.
pub enum Message {
    /// Take a connection.
    Admit(Box<Admitted>),
    /// Pass a state on to those who watch its job.
    State(Arc<Frame>),
    /// Accept no more, and close all sockets over so long.
    Drain(Duration),
}

/// What waits for a loop.
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    waker: Waker,
}

impl Inbox {
    /// An empty one, which wakes the poll of `registry` by [`WAKER`].
    ///
    /// # Errors
    /// When the kernel gives no file descriptor.
    pub fn new(registry: &Registry) -> io::Result<Self> {
        Ok(Self { messages: Mutex::default(), waker: Waker::new(registry, WAKER)? })
    }

    /// Puts a message behind the others.
    pub fn put(&self, message: Message) {
        let mut messages = self.messages.lock().expect("no panic while held");
        messages.push(message);
        let first = messages.len() == 1;
        drop(messages);
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake socket loop");
        }
    }

    /// Swaps what waits with `into`, which is empty.
    pub fn take(&self, into: &mut Vec<Message>) {
        std::mem::swap(&mut *self.messages.lock().expect("no panic while held"), into);
    }
}

impl Watcher for Inbox {
    fn put(&self, frame: Arc<Frame>) {
        Self::put(self, Message::State(frame));
    }
}
