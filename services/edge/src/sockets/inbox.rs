//! The queue from other threads to a loop: connections after their handshake, states, and the drain.

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

/// The token of the waker: the inbox has messages.
pub const WAKER: Token = Token(usize::MAX);

/// A connection after its handshake.
pub struct Admitted<C = Unregistered> {
    /// Either read until it would block, or the poll will report it as readable.
    pub connection: C,
    /// Bytes that the client sent after its handshake.
    pub early: Vec<u8>,
    /// The job that the client watches.
    pub id: JobId,
    /// The newest sequence that the client has seen.
    pub since: u64,
    /// Its place among the connections.
    pub permit: Permit,
}

/// An order to a loop.
pub enum Message {
    /// Take a connection.
    Admit(Box<Admitted>),
    /// Send a state to the sockets that watch its job.
    State(Arc<Frame>),
    /// Stop accepting, and close all sockets over this time.
    Drain(Duration),
}

/// The pending messages of a loop.
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    waker: Waker,
}

impl Inbox {
    /// An empty inbox that wakes the poll of `registry` with [`WAKER`].
    ///
    /// # Errors
    /// The system has no file descriptors left.
    pub fn new(registry: &Registry) -> io::Result<Self> {
        Ok(Self { messages: Mutex::default(), waker: Waker::new(registry, WAKER)? })
    }

    /// Appends a message, and wakes the loop if it is the first.
    pub fn put(&self, message: Message) {
        let mut messages = self.messages.lock().expect("no panic while held");
        messages.push(message);
        let first = messages.len() == 1;
        drop(messages);
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake socket loop");
        }
    }

    /// Moves all pending messages to `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<Message>) {
        std::mem::swap(&mut *self.messages.lock().expect("no panic while held"), into);
    }
}

impl Watcher for Inbox {
    fn put(&self, frame: Arc<Frame>) {
        Self::put(self, Message::State(frame));
    }
}
