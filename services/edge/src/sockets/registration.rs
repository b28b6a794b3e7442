//! Connections before and after registration with a loop's poll, as two types, since each needs other calls.

use std::io;

use mio::{Interest, Registry, Token, net::TcpStream};

/// A connection that is not registered with a poll.
pub struct Unregistered(pub TcpStream);

/// A connection that is registered with a loop's poll. Closing it removes it from the poll.
pub struct Registered(pub TcpStream);

/// Either of them.
pub trait Connection {
    /// The stream, to be read.
    fn stream(&mut self) -> &mut TcpStream;

    /// Registers the connection for `interest` under `token`.
    ///
    /// # Errors
    /// When the kernel refuses; the connection is closed.
    fn enter(self, registry: &Registry, token: Token, interest: Interest) -> io::Result<Registered>;

    /// Removes the connection from the poll.
    ///
    /// # Errors
    /// When the kernel refuses; the connection is closed.
    fn leave(self, registry: &Registry) -> io::Result<Unregistered>;
}

impl Connection for Unregistered {
    fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    fn enter(self, registry: &Registry, token: Token, interest: Interest) -> io::Result<Registered> {
        let Self(mut stream) = self;
        registry.register(&mut stream, token, interest)?;
        Ok(Registered(stream))
    }

    fn leave(self, _: &Registry) -> io::Result<Unregistered> {
        Ok(self)
    }
}

impl Connection for Registered {
    fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    fn enter(self, registry: &Registry, token: Token, interest: Interest) -> io::Result<Self> {
        let Self(mut stream) = self;
        registry.reregister(&mut stream, token, interest)?;
        Ok(Self(stream))
    }

    fn leave(self, registry: &Registry) -> io::Result<Unregistered> {
        let Self(mut stream) = self;
        registry.deregister(&mut stream)?;
        Ok(Unregistered(stream))
    }
}
