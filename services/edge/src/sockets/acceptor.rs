//! Accepts connections from the listener that all loops share, within the bounds of [`Admission`].

use std::io;

use mio::{Token, net::TcpStream};

use crate::admission::{Accepted, Admission};

/// The token of the listener: connections are pending.
pub const LISTENER: Token = Token(usize::MAX - 1);

/// One loop's handle of the listener.
pub struct Acceptor {
    listener: mio::net::TcpListener,
    admission: Admission,
}

/// A connection above the bounds.
pub struct Full(pub TcpStream);

impl Acceptor {
    /// A new handle of `listener`, which must be non-blocking, within the bounds of `admission`.
    ///
    /// # Errors
    /// The system has no file descriptors left.
    pub fn new(listener: &std::net::TcpListener, admission: Admission) -> io::Result<Self> {
        Ok(Self { listener: mio::net::TcpListener::from_std(listener.try_clone()?), admission })
    }

    /// The source to register with a poll. The caller must deregister it before dropping it, since the loops share the
    /// socket.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.listener
    }

    /// Accepts the next connection.
    ///
    /// # Errors
    /// `WouldBlock` when none is pending.
    pub fn accept(&self) -> io::Result<Result<Accepted, Full>> {
        let (stream, peer) = self.listener.accept()?;
        Ok(match self.admission.admit(peer.ip()) {
            Some(permit) => Ok(Accepted { stream, peer, permit }),
            None => Err(Full(stream)),
        })
    }
}
