//! How a connection becomes a socket: those whose first request is not read yet. A WebSocket handshake is answered here, so that in a storm a client
//! costs no task, no timer and no buffer; everything else goes on to hyper, which has what was read.

use std::{
    io::{self, ErrorKind, Read},
    time::Instant,
};

use mio::{Interest, Token};

use millrace_domain::limits::{ACCEPTS_PER_TURN_MAX, HANDSHAKE_HOLD_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_MAX};

use super::{EventLoop, Socket, Watched};
use crate::{
    admission::Accepted,
    http::problem::ApiError,
    sockets::{Admitted, outbox::Outbox, session::Session},
    websocket::{
        decode::Decoder,
        handshake::Handshake,
        head::{self, Head},
    },
};

/// Tokens from here on are greetings, not sockets.
pub const FIRST_TOKEN: usize = 1 << (usize::BITS - 2);

/// A connection that was accepted.
pub struct Greeting {
    accepted: Accepted,
    /// What was read, while that is no whole head.
    read: Vec<u8>,
    until: Instant,
}

/// What is to become of a connection.
enum Next {
    /// More must come.
    Wait,
    /// Its handshake is to be answered; what came behind it.
    Socket(Handshake, Vec<u8>),
    /// hyper answers.
    Http,
    /// There is nothing to serve.
    Refuse(ApiError),
    /// It has ended.
    Gone,
}

impl EventLoop {
    /// Takes connections that wait, so few that the sockets still have their turn.
    pub(super) fn accept(&mut self, now: Instant) {
        if !std::mem::take(&mut self.may_accept) {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let Some(acceptor) = &self.acceptor else { return };
            match acceptor.accept() {
                Ok(Some(accepted)) => self.greet(accepted, now),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                // Out of file descriptors, mostly: those that are open go on, and the next tick tries again.
                Err(error) => return tracing::warn!(%error, "a connection could not be accepted"),
            }
        }
        self.may_accept = true;
    }

    /// Lets go of the listener, which closes when all loops have.
    pub(super) fn stop_accepting(&mut self) {
        if let Some(mut acceptor) = self.acceptor.take()
            && let Err(error) = self.poll.registry().deregister(acceptor.source())
        {
            not_deregistered(&error);
        }
    }

    /// Takes a connection. Often the request is there already.
    fn greet(&mut self, accepted: Accepted, now: Instant) {
        let mut greeting = Greeting { accepted, read: Vec::new(), until: now + HTTP_HEAD_MAX };
        match self.advance(&mut greeting) {
            Next::Wait => {
                let entry = self.greetings.vacant_entry();
                let token = Token(FIRST_TOKEN + entry.key());
                match self.poll.registry().register(&mut greeting.accepted.stream, token, Interest::READABLE) {
                    Ok(()) => drop(entry.insert(greeting)),
                    Err(error) => tracing::warn!(%error, "a connection could not be registered"),
                }
            }
            next => self.go_on(greeting, next, false, now),
        }
    }

    /// More has come for a greeting.
    pub(super) fn greeting_ready(&mut self, token: usize, now: Instant) {
        let key = token - FIRST_TOKEN;
        if !self.greetings.contains(key) {
            return;
        }
        let mut greeting = self.greetings.remove(key);
        match self.advance(&mut greeting) {
            Next::Wait => {
                // The place that was left last is the first to be taken: its token stays.
                let same = self.greetings.insert(greeting);
                debug_assert_eq!(same, key);
            }
            next => self.go_on(greeting, next, true, now),
        }
    }

    /// Answers handshakes that have waited long enough for a state. One that was answered meanwhile is so no more.
    pub(super) fn release(&mut self, now: Instant) {
        while let Some((token, _)) = self.held.pop_front_if(|(_, until)| now >= *until) {
            if let Some(socket) = self.sockets.get_mut(token).filter(|socket| !socket.is_over) {
                let sent = socket.outbox.release(&mut socket.stream, now);
                self.sent(token, sent);
            }
        }
    }

    /// Lets go of connections whose head does not come.
    pub(super) fn tick_greetings(&mut self, now: Instant) {
        let late = self.greetings.iter().filter(|(_, greeting)| now >= greeting.until);
        let late: Vec<_> = late.map(|(key, _)| key).collect();
        for key in late {
            let greeting = self.greetings.remove(key);
            self.metrics.heads_timed_out.inc();
            tracing::debug!(peer = %greeting.accepted.peer, "a connection ended: its headers did not come in time");
        }
    }

    /// Hands all that wait to hyper, which answers who still sends a request.
    pub(super) fn hand_over_greetings(&mut self, now: Instant) {
        for greeting in self.greetings.drain().collect::<Vec<_>>() {
            self.go_on(greeting, Next::Http, true, now);
        }
    }

    /// Reads until the head is complete or nothing is left.
    fn advance(&mut self, greeting: &mut Greeting) -> Next {
        loop {
            let count = match greeting.accepted.stream.read(&mut self.scratch) {
                Ok(0) => return Next::Gone,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Next::Gone,
            };
            let seen = greeting.read.len();
            let bytes = match seen {
                0 => &self.scratch[..count],
                _ => {
                    greeting.read.extend_from_slice(&self.scratch[..count]);
                    &greeting.read[..]
                }
            };
            match head::parse(bytes, seen) {
                Head::Socket(request, length) => {
                    if let Some(handshake) = self.handshakes.of(&request) {
                        return Next::Socket(handshake, bytes[length..].to_vec());
                    }
                }
                Head::Partial if bytes.len() < HTTP_HEAD_BYTES_MAX => {
                    if seen == 0 {
                        greeting.read = bytes.to_vec();
                    }
                    continue;
                }
                Head::Partial => return Next::Refuse(ApiError::HeadTooLarge),
                Head::Malformed => return Next::Refuse(ApiError::MalformedRequest),
                Head::Other => {}
            }
            if seen == 0 {
                greeting.read = bytes.to_vec();
            }
            return Next::Http;
        }
    }

    fn go_on(&mut self, greeting: Greeting, next: Next, is_registered: bool, now: Instant) {
        let Greeting { mut accepted, read, .. } = greeting;
        match next {
            Next::Socket(handshake, early) => {
                let answer = handshake.answer();
                let Handshake { id, since, .. } = handshake;
                let Accepted { stream, permit, .. } = accepted;
                self.metrics.requests.with_label_values(&["101"]).inc();
                self.admit(Admitted { stream, early, id, since, permit }, answer, is_registered, now);
            }
            Next::Http => {
                let left = if is_registered { self.poll.registry().deregister(&mut accepted.stream) } else { Ok(()) };
                match left {
                    Ok(()) => self.http.serve(accepted, read),
                    Err(error) => not_deregistered(&error),
                }
            }
            Next::Refuse(why) => {
                let left = if is_registered { self.poll.registry().deregister(&mut accepted.stream) } else { Ok(()) };
                match left {
                    Ok(()) => {
                        self.metrics.requests.with_label_values(&[why.status().as_str()]).inc();
                        self.http.refuse(accepted.stream, &why);
                    }
                    Err(error) => not_deregistered(&error),
                }
            }
            // Closed, it leaves the epoll by itself.
            Next::Gone | Next::Wait => {}
        }
    }

    /// A connection becomes a socket. It is sent `answer`, to its handshake, and the state, at once if that is known.
    pub(super) fn admit(&mut self, admitted: Admitted, answer: Vec<u8>, is_registered: bool, now: Instant) {
        let Admitted { mut stream, mut early, id, since, permit } = admitted;
        let entry = self.sockets.vacant_entry();
        let token = entry.key();
        let (registry, interest) = (self.poll.registry(), Interest::READABLE | Interest::WRITABLE);
        let registered = if is_registered {
            registry.reregister(&mut stream, Token(token), interest)
        } else {
            registry.register(&mut stream, Token(token), interest)
        };
        if let Err(error) = registered {
            tracing::warn!(%error, "a socket could not be registered");
            return;
        }
        self.metrics.sockets.inc();
        self.metrics.sockets_opened.inc();
        let (newest, place) = match self.jobs.get_mut(&id) {
            Some(watched) => {
                watched.sockets.push(token);
                (watched.newest.clone(), watched.sockets.len() - 1)
            }
            None => {
                let newest = self.feed.watch(&id, since, self.inbox.clone());
                let watched = Watched { sockets: vec![token], newest: newest.clone(), fresh: Vec::new() };
                self.jobs.insert(id.clone(), watched);
                (newest, 0)
            }
        };
        let socket = entry.insert(Socket {
            stream,
            job: id,
            place,
            session: Session::new(since, now),
            decoder: Decoder::default(),
            outbox: Outbox::default(),
            closing: None,
            is_over: false,
            _permit: permit,
        });
        if !answer.is_empty() {
            socket.outbox.hold(answer, now);
            self.held.push_back((token, now + HANDSHAKE_HOLD_MAX));
        }
        if let Some(newest) = newest {
            self.offer(token, &[newest], now);
        }
        if !early.is_empty() {
            self.decode(token, &mut early, now);
        }
    }
}

fn not_deregistered(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken out of its loop");
}
