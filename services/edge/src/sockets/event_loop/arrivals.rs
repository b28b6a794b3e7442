//! Turns connections into sockets.

use std::time::Instant;

use http::StatusCode;
use millrace_domain::limits::{ACCEPTS_PER_TURN_MAX, HANDSHAKE_HOLD_MAX};
use mio::{Interest, Token};

use super::{EventLoop, Socket, Watched, lobby::Arrival};
use crate::{
    metrics::Status,
    sockets::{
        inbox::Admitted,
        outbox::Outbox,
        registration::{Connection, Registered},
        session::Session,
    },
    websocket::decode::Decoder,
};

impl EventLoop {
    /// Accepts pending connections, with a bound per turn so that the sockets are served too.
    pub(super) fn accept(&mut self, now: Instant) {
        let mut left = ACCEPTS_PER_TURN_MAX;
        while let Some(arrival) = self.lobby.accept(&mut left, self.poll.registry(), &mut self.scratch, now) {
            self.welcome(arrival, now);
        }
    }

    /// Turns a connection into a socket, and holds the response to its handshake for the first state.
    pub(super) fn welcome(&mut self, arrival: Arrival<impl Connection>, now: Instant) {
        self.metrics.requests.of(&Status(StatusCode::SWITCHING_PROTOCOLS)).inc();
        if let Some(token) = self.admit(arrival.admitted, Outbox::holding(arrival.answer, now), now) {
            self.held.push_back((token, now + HANDSHAKE_HOLD_MAX));
        }
    }

    /// Turns a connection whose handshake response is sent or in `outbox` into a socket, and sends the job's state if
    /// it is known.
    pub(super) fn admit(&mut self, admitted: Admitted<impl Connection>, outbox: Outbox, now: Instant) -> Option<usize> {
        let Admitted { connection, mut early, id, since, permit } = admitted;
        let entry = self.sockets.vacant_entry();
        let token = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let Registered(stream) = match connection.enter(self.poll.registry(), Token(token), interest) {
            Ok(registered) => registered,
            Err(error) => {
                tracing::warn!(%error, "cannot register socket");
                return None;
            }
        };
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
        entry.insert(Socket {
            stream,
            job: id,
            place,
            session: Session::new(since, now),
            decoder: Decoder::default(),
            outbox,
            closing: None,
            is_over: false,
            _permit: permit,
        });
        if let Some(newest) = newest {
            self.offer(token, &[newest], now);
        }
        if !early.is_empty() {
            self.decode(token, &mut early, now);
        }
        Some(token)
    }

    /// Sends the handshake responses whose hold has expired. One that is sent already is not held any more.
    pub(super) fn release(&mut self, now: Instant) {
        while let Some((token, _)) = self.held.pop_front_if(|(_, until)| now >= *until) {
            if let Some(socket) = self.sockets.get_mut(token).filter(|socket| !socket.is_over) {
                let sent = socket.outbox.release(&mut socket.stream, now);
                self.sent(token, sent);
            }
        }
    }
}
