//! A connection as hyper gets it: first the bytes that the event loop has read already, then the stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::keep_alive::HeadTimer;

/// Bytes read earlier, then the stream itself. Reports each read to its [`HeadTimer`].
#[derive(Debug)]
pub struct Resumed {
    read: Bytes,
    stream: TcpStream,
    head: HeadTimer,
}

impl Resumed {
    /// Yields `read` first, then the bytes of `stream`.
    pub fn new(read: Vec<u8>, stream: TcpStream, head: HeadTimer) -> Self {
        Self { read: read.into(), stream, head }
    }

    /// The bytes not consumed yet, and the stream.
    pub fn into_parts(self) -> (Bytes, TcpStream) {
        (self.read, self.stream)
    }
}

impl AsyncRead for Resumed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = if self.read.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, into)
        } else {
            let count = self.read.len().min(into.remaining());
            into.put_slice(&self.read[..count]);
            self.read.advance(count);
            if self.read.is_empty() {
                // This frees the buffer.
                self.read = Bytes::new();
            }
            Poll::Ready(Ok(()))
        };
        if into.filled().len() > before {
            self.head.came();
        }
        polled
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_first_and_what_is_not_read_again_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(b" world").await.unwrap();
        let head = HeadTimer::default();
        let mut resumed = Resumed::new(b"hello".to_vec(), stream, head.clone());
        assert!(!head.has_begun());
        let mut three = [0; 3];
        resumed.read_exact(&mut three).await.unwrap();
        assert!(head.has_begun() && three == *b"hel");
        let mut five = [0; 5];
        resumed.read_exact(&mut five).await.unwrap();
        assert_eq!(five, *b"lo wo");
        let (left, mut stream) = resumed.into_parts();
        assert!(left.is_empty());
        let left = Resumed::new(b"more".to_vec(), stream, head).into_parts();
        assert_eq!(left.0, &b"more"[..]);
        stream = left.1;
        stream.read_exact(&mut three).await.unwrap();
        assert_eq!(three, *b"rld");
    }
}
