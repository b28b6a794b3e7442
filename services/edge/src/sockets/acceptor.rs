//! The listener, which all loops share, and the bounds under which each takes connections from it.

use std::io;

use mio::Token;

use crate::{
    admission::{Accepted, Admission},
    http::{problem::ApiError, server::Http},
    metrics::Metrics,
};

/// By which the poll of a loop reports that connections wait.
pub const LISTENER: Token = Token(usize::MAX - 1);

/// One loop's hold of the listener.
pub struct Acceptor {
    listener: mio::net::TcpListener,
    admission: Admission,
    http: Http,
    metrics: Metrics,
}

impl Acceptor {
    /// Another hold of `listener`, which must not block, under the bounds of `admission`.
    ///
    /// # Errors
    /// When the kernel gives no file descriptor.
    pub fn new(
        listener: &std::net::TcpListener,
        admission: Admission,
        http: Http,
        metrics: Metrics,
    ) -> io::Result<Self> {
        Ok(Self { listener: mio::net::TcpListener::from_std(listener.try_clone()?), admission, http, metrics })
    }

    /// What tells when connections wait. To be deregistered before it is dropped: the loops share what is beneath.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.listener
    }

    /// Takes the next connection; `None` when there was no place for it and it is told so.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub fn accept(&self) -> io::Result<Option<Accepted>> {
        let (stream, peer) = self.listener.accept()?;
        let Some(permit) = self.admission.admit(peer.ip()) else {
            self.metrics.connections_refused.inc();
            self.http.refuse(stream, &ApiError::TooManyConnections);
            return Ok(None);
        };
        Ok(Some(Accepted { stream, peer, permit }))
    }
}
