//! The listener, which all loops share, and the bounds under which each takes connections from it.

use std::io;

use mio::{Token, net::TcpStream};

use crate::admission::{Accepted, Admission};

/// By which the poll of a loop reports that connections wait.
pub const LISTENER: Token = Token(usize::MAX - 1);

/// One loop's hold of the listener.
pub struct Acceptor {
    listener: mio::net::TcpListener,
    admission: Admission,
}

/// A connection for which there is no place.
pub struct Full(pub TcpStream);

impl Acceptor {
    /// Another hold of `listener`, which must not block, under the bounds of `admission`.
    ///
    /// # Errors
    /// When the kernel gives no file descriptor.
    pub fn new(listener: &std::net::TcpListener, admission: Admission) -> io::Result<Self> {
        Ok(Self { listener: mio::net::TcpListener::from_std(listener.try_clone()?), admission })
    }

    /// What tells when connections wait. To be deregistered before it is dropped: the loops share what is beneath.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.listener
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub fn accept(&self) -> io::Result<Result<Accepted, Full>> {
        let (stream, peer) = self.listener.accept()?;
        Ok(match self.admission.admit(peer.ip()) {
            Some(permit) => Ok(Accepted { stream, peer, permit }),
            None => Err(Full(stream)),
        })
    }
}
