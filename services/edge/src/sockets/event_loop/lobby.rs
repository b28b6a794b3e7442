//! Connections between accept and their first request. The loop answers a WebSocket handshake itself, so that a client
//! in a reconnect storm costs no task, timer or buffer. It passes everything else to hyper, with the bytes read.

use std::{
    io::{self, ErrorKind, Read},
    net::SocketAddr,
    time::Instant,
};

use millrace_domain::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEAD_MAX};
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::{
    admission::{Accepted, Permit},
    http::{problem::ApiError, server::Http},
    metrics::{Metrics, Status},
    sockets::{
        acceptor::{Acceptor, Full},
        inbox::Admitted,
        registration::{Connection, Registered, Unregistered},
    },
    websocket::{
        handshake::{Handshake, Handshakes},
        head::{self, FirstRequest},
    },
};

/// Tokens from here on belong to connections in the lobby, lower ones to sockets.
pub const FIRST_TOKEN: usize = 1 << (usize::BITS - 2);

/// The lobby of one loop: connections whose first request is incomplete.
pub struct Lobby {
    /// `None` while draining.
    acceptor: Option<Acceptor>,
    /// More connections may be pending. The poll reports readiness only once.
    may_accept: bool,
    greetings: Slab<Greeting<Registered>>,
    handshakes: Handshakes,
    http: Http,
    metrics: Metrics,
}

/// A connection that becomes a socket, and the response to its handshake.
pub struct Arrival<C> {
    pub admitted: Admitted<C>,
    pub answer: Vec<u8>,
}

/// An accepted connection.
struct Greeting<C> {
    connection: C,
    peer: SocketAddr,
    permit: Permit,
    /// The bytes read, while the head is incomplete.
    read: Vec<u8>,
    until: Instant,
}

/// The next step of a connection.
enum Next {
    /// Wait for more bytes.
    Wait,
    /// Answer its handshake; with the bytes after it.
    Socket(Handshake, Vec<u8>),
    /// Pass it to hyper.
    Http,
    /// Refuse it with this error.
    Refuse(ApiError),
    /// Drop it: the connection has ended.
    Gone,
}

impl Lobby {
    /// An empty lobby that takes connections from `acceptor`.
    pub const fn new(acceptor: Acceptor, handshakes: Handshakes, http: Http, metrics: Metrics) -> Self {
        Self { acceptor: Some(acceptor), may_accept: true, greetings: Slab::new(), handshakes, http, metrics }
    }

    /// Whether connections may be pending.
    pub const fn may_accept(&self) -> bool {
        self.may_accept
    }

    /// Makes the loop try to accept again.
    pub const fn look_again(&mut self) {
        self.may_accept = true;
    }

    /// Accepts up to `left` connections, and returns when one of them becomes a socket.
    pub fn accept(
        &mut self,
        left: &mut u32,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
    ) -> Option<Arrival<Unregistered>> {
        while self.may_accept && *left > 0 {
            *left -= 1;
            let accepted = self.acceptor.as_ref().map_or(Err(ErrorKind::WouldBlock.into()), Acceptor::accept);
            match accepted {
                Ok(Ok(accepted)) => {
                    if let Some(arrival) = self.greet(accepted, registry, scratch, now) {
                        return Some(arrival);
                    }
                }
                Ok(Err(Full(stream))) => {
                    self.metrics.connections_refused.inc();
                    self.http.refuse(stream, &ApiError::TooManyConnections);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    self.may_accept = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        // Usually out of file descriptors. Open connections go on, and the next tick tries again.
                        tracing::warn!(%error, "cannot accept connection; retrying");
                    }
                }
            }
        }
        None
    }

    /// Reads from a new connection at once, since the request has often arrived already.
    fn greet(
        &mut self,
        Accepted { stream, peer, permit }: Accepted,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
    ) -> Option<Arrival<Unregistered>> {
        let connection = Unregistered(stream);
        let mut greeting = Greeting { connection, peer, permit, read: Vec::new(), until: now + HTTP_HEAD_MAX };
        match self.advance(&mut greeting, scratch) {
            Next::Wait => {
                let entry = self.greetings.vacant_entry();
                match greeting.enter(registry, Token(FIRST_TOKEN + entry.key())) {
                    Ok(greeting) => drop(entry.insert(greeting)),
                    Err(error) => tracing::warn!(%error, "cannot register connection"),
                }
                None
            }
            next => self.go_on(greeting, next, registry),
        }
    }

    /// Reads from the connection of `token`, which is readable.
    pub fn ready(&mut self, token: usize, registry: &Registry, scratch: &mut [u8]) -> Option<Arrival<Registered>> {
        let key = token - FIRST_TOKEN;
        let mut greeting = self.greetings.try_remove(key)?;
        match self.advance(&mut greeting, scratch) {
            Next::Wait => {
                // The slab reuses the key that was freed last, so the token stays the same.
                let same = self.greetings.insert(greeting);
                debug_assert_eq!(same, key);
                None
            }
            next => self.go_on(greeting, next, registry),
        }
    }

    /// Closes connections whose head did not arrive in time.
    pub fn tick(&mut self, now: Instant) {
        let late = self.greetings.iter().filter(|(_, greeting)| now >= greeting.until);
        let late: Vec<_> = late.map(|(key, _)| key).collect();
        for key in late {
            let greeting = self.greetings.remove(key);
            self.metrics.heads_timed_out.inc();
            tracing::debug!(peer = %greeting.peer, "connection closed: request headers timed out");
        }
    }

    /// Drops the listener, which closes when all loops have dropped it, and passes all connections to hyper, which
    /// answers those that still send a request.
    pub fn close(&mut self, registry: &Registry) {
        if let Some(mut acceptor) = self.acceptor.take()
            && let Err(error) = registry.deregister(acceptor.source())
        {
            not_deregistered(&error);
        }
        for (_, greeting) in std::mem::take(&mut self.greetings) {
            self.serve(greeting, registry);
        }
    }

    /// Reads until the head is complete or the connection would block.
    fn advance(&self, greeting: &mut Greeting<impl Connection>, scratch: &mut [u8]) -> Next {
        loop {
            let count = match greeting.connection.stream().read(scratch) {
                Ok(0) => return Next::Gone,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Next::Gone,
            };
            let seen = greeting.read.len();
            let bytes = match seen {
                0 => &scratch[..count],
                _ => {
                    greeting.read.extend_from_slice(&scratch[..count]);
                    &greeting.read[..]
                }
            };
            match head::parse(bytes, seen) {
                FirstRequest::Socket(request, length) => {
                    if let Some(handshake) = self.handshakes.of(&request) {
                        return Next::Socket(handshake, bytes[length..].to_vec());
                    }
                }
                FirstRequest::Partial if bytes.len() < HTTP_HEAD_BYTES_MAX => {
                    if seen == 0 {
                        greeting.read = bytes.to_vec();
                    }
                    continue;
                }
                FirstRequest::Partial => return Next::Refuse(ApiError::HeadTooLarge),
                FirstRequest::Malformed => return Next::Refuse(ApiError::MalformedRequest),
                FirstRequest::Other => {}
            }
            if seen == 0 {
                greeting.read = bytes.to_vec();
            }
            return Next::Http;
        }
    }

    fn go_on<C: Connection>(&self, greeting: Greeting<C>, next: Next, registry: &Registry) -> Option<Arrival<C>> {
        match next {
            Next::Socket(handshake, early) => {
                let answer = handshake.answer();
                let Handshake { id, since, .. } = handshake;
                let Greeting { connection, permit, .. } = greeting;
                return Some(Arrival { admitted: Admitted { connection, early, id, since, permit }, answer });
            }
            Next::Http => self.serve(greeting, registry),
            Next::Refuse(why) => match greeting.connection.leave(registry) {
                Ok(Unregistered(stream)) => {
                    self.metrics.requests.of(&Status(why.status())).inc();
                    self.http.refuse(stream, &why);
                }
                Err(error) => not_deregistered(&error),
            },
            Next::Gone | Next::Wait => {}
        }
        None
    }

    fn serve(&self, greeting: Greeting<impl Connection>, registry: &Registry) {
        let Greeting { connection, peer, permit, read, .. } = greeting;
        match connection.leave(registry) {
            Ok(Unregistered(stream)) => self.http.serve(Accepted { stream, peer, permit }, read),
            Err(error) => not_deregistered(&error),
        }
    }
}

impl Greeting<Unregistered> {
    fn enter(self, registry: &Registry, token: Token) -> io::Result<Greeting<Registered>> {
        let Self { connection, peer, permit, read, until } = self;
        let connection = connection.enter(registry, token, Interest::READABLE)?;
        Ok(Greeting { connection, peer, permit, read, until })
    }
}

fn not_deregistered(error: &io::Error) {
    tracing::warn!(%error, "cannot deregister connection");
}
