//! Deadlines: pings, closes, and clients that do not respond.

use std::time::Instant;

use millrace_domain::{
    close::{self, Close},
    limits::CLIENT_WRITE_MAX,
};

use super::{DRAIN_TICK, EventLoop, Socket};
use crate::{
    sockets::session::Due,
    websocket::{close::Closing, encode},
};

impl EventLoop {
    /// Carries out the actions that are due on all sockets.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (token, socket) in &mut self.sockets {
            let stuck =
                socket.outbox.blocked_since().is_some_and(|since| now.duration_since(since) >= CLIENT_WRITE_MAX);
            match socket.closing {
                Some((until, _)) if now >= until => due.push((token, Due::Gone)),
                Some(_) => {}
                None if stuck => due.push((token, Due::Gone)),
                None => due.extend(socket.session.tick(now).map(|due| (token, due))),
            }
        }
        for (token, due) in due {
            match due {
                Due::Close(with) => {
                    let with = self.deserved(token, with);
                    self.close(token, Closing::Ours(with), now);
                }
                Due::Ask => {
                    let Some(socket) = self.sockets.get(token) else { continue };
                    self.feed.refresh(&socket.job, socket.session.seen());
                }
                Due::Gone => self.end(token),
                Due::Ping => {
                    let Some(socket) = self.sockets.get_mut(token) else { continue };
                    if let Err(error) = socket.outbox.control(&mut socket.stream, &encode::PING, now) {
                        self.gone(token, &error);
                    }
                }
            }
        }
    }

    /// Replaces "unknown job" by "overloaded, try later" while the log has not answered: only the log can report that a
    /// job does not exist.
    fn deserved(&self, token: usize, with: Close) -> Close {
        let is_heard = |socket: &Socket| self.feed.was_answered(&socket.job);
        let is_unheard = with == close::UNKNOWN_JOB && !self.sockets.get(token).is_some_and(is_heard);
        if is_unheard { close::OVERLOADED } else { with }
    }

    /// Closes the sockets that are due in the drain.
    pub(super) fn drain(&mut self, now: Instant) {
        let Some(drain) = &mut self.drain else { return };
        let open = self.sockets.iter().filter(|(_, socket)| socket.closing.is_none()).map(|(token, _)| token);
        let batch: Vec<_> = open.take(drain.due(DRAIN_TICK, now)).collect();
        drain.closed(batch.len());
        for token in batch {
            self.close(token, Closing::Ours(close::GOING_AWAY), now);
        }
    }
}
