//! Whether a loop's poll has a connection, as a type: one that it has leaves it by other calls than one that it has
//! not.

use std::io;

use mio::{Interest, Registry, Token, net::TcpStream};

/// A connection that no poll has.
pub struct Unregistered(pub TcpStream);

/// A connection that a loop's poll has. Closed, it leaves the poll by itself.
pub struct Registered(pub TcpStream);

/// Either of them.
pub trait Connection {
    /// The stream, to be read.
    fn stream(&mut self) -> &mut TcpStream;

    /// Has the poll of `registry` report by `token` what is of `interest`.
    ///
    /// # Errors
    /// When the kernel refuses; the connection is closed.
    fn enter(self, registry: &Registry, token: Token, interest: Interest) -> io::Result<Registered>;

    /// Has the poll of `registry` report nothing of it any more.
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
