//! The floor: the cost of writing the frames with almost nothing else.
//!
//! Accepts, answers the handshake after a search for one header, writes the job's newest frame, and then writes each of
//! the publisher's frames to all sockets of the job in one loop. No library, no checks, no timers, no pings; a separate
//! process, so that its memory and processor time are measured alone.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The system's maximum where this was measured.
const BACKLOG: u32 = 4_096;
const HEAD_BYTES_MAX: usize = 2_048;
const KEY: &[u8] = b"Sec-WebSocket-Key: ";

/// The floor of `cargo dev bench edge`, which starts it by itself
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where clients connect
    #[arg(long)]
    listen: SocketAddr,
    /// Where the publisher connects
    #[arg(long)]
    publisher: SocketAddr,
    /// Write frames that are due together with one call
    #[arg(long)]
    merge: bool,
}

/// A publisher's message: a job, a whole WebSocket frame that new clients receive first, and whether connected clients
/// receive it too.
pub fn message(id: &str, frame: &[u8], is_sent: bool) -> Vec<u8> {
    let mut message = vec![u8::from(is_sent), id.len() as u8];
    message.extend((frame.len() as u32).to_be_bytes());
    message.extend(id.as_bytes());
    message.extend(frame);
    message
}

#[derive(Default)]
struct Jobs(Mutex<HashMap<Box<str>, Arc<Mutex<Job>>>>);

#[derive(Default)]
struct Job {
    newest: Vec<u8>,
    sockets: Vec<Arc<Socket>>,
}

struct Socket {
    stream: TcpStream,
    /// Bytes that a full socket did not take. A task writes them before anything newer.
    backlog: Mutex<Vec<u8>>,
}

/// Runs until it is killed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let jobs = Arc::new(Jobs::default());
    let publisher = TcpListener::bind(args.publisher).await?;
    let (accepting, merge) = (jobs.clone(), args.merge);
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(args.listen)?;
    let listener = socket.listen(BACKLOG)?;
    tokio::spawn(async move {
        loop {
            // The open-file limit is reached; a later accept may succeed.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let jobs = accepting.clone();
            tokio::spawn(async move {
                // The client has disconnected.
                let _ = client(&jobs, stream).await;
            });
        }
    });
    let (stream, _) = publisher.accept().await?;
    publish(&jobs, stream, merge).await
}

async fn client(jobs: &Jobs, mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (id, mut answer) = handshake(&mut stream).await?;
    let job = jobs.job(&id);
    let socket = {
        let mut job = lock(&job);
        answer.extend_from_slice(&job.newest);
        let socket = Arc::new(Socket { stream, backlog: Mutex::default() });
        socket.send(&answer);
        job.sockets.push(socket.clone());
        socket
    };
    drop(answer);
    loop {
        socket.stream.readable().await?;
        match socket.stream.try_read(&mut [0; 256]) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break,
        }
    }
    lock(&job).sockets.retain(|other| !Arc::ptr_eq(other, &socket));
    Ok(())
}

/// Reads the handshake; returns the job's id from the path, and the response.
async fn handshake(stream: &mut TcpStream) -> anyhow::Result<(String, Vec<u8>)> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            bail!("no handshake");
        }
    }
    let path = head.split(|byte| *byte == b' ').nth(1).context("no path")?;
    let id = String::from_utf8_lossy(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).into_owned();
    let key = memchr::memmem::find(&head, KEY).context("no key")? + KEY.len();
    let key = head[key..].split(|byte| *byte == b'\r').next().context("no end")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
        {}\r\n\r\n",
        derive_accept_key(key)
    );
    Ok((id, answer.into_bytes()))
}

async fn publish(jobs: &Jobs, mut stream: TcpStream, merge: bool) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut due: HashMap<String, Vec<u8>> = HashMap::new();
    while stream.read_buf(&mut buffer).await? > 0 {
        let mut used = 0;
        while let Some((is_sent, id, frame, length)) = first(&buffer[used..]) {
            used += length;
            lock(&jobs.job(id)).newest = frame.to_vec();
            match (is_sent, merge) {
                (false, _) => {}
                (true, false) => jobs.send(id, frame),
                (true, true) => due.entry(id.to_owned()).or_default().extend_from_slice(frame),
            }
        }
        buffer.drain(..used);
        for (id, frames) in due.drain() {
            jobs.send(&id, &frames);
        }
    }
    Ok(())
}

/// The first message in `bytes`: whether connected clients receive it, the job, the frame, and the message's length.
fn first(bytes: &[u8]) -> Option<(bool, &str, &[u8], usize)> {
    let (&is_sent, &id_length) = (bytes.first()?, bytes.get(1)?);
    let id_end = 6 + usize::from(id_length);
    let end = id_end + u32::from_be_bytes(bytes.get(2..6)?.try_into().ok()?) as usize;
    let id = std::str::from_utf8(bytes.get(6..id_end)?).unwrap_or_default();
    Some((is_sent == 1, id, bytes.get(id_end..end)?, end))
}

impl Jobs {
    fn job(&self, id: &str) -> Arc<Mutex<Job>> {
        let mut jobs = lock(&self.0);
        match jobs.get(id) {
            Some(job) => job.clone(),
            None => jobs.entry(id.into()).or_default().clone(),
        }
    }

    fn send(&self, id: &str, bytes: &[u8]) {
        for socket in &lock(&self.job(id)).sockets {
            socket.send(bytes);
        }
    }
}

impl Socket {
    fn send(self: &Arc<Self>, bytes: &[u8]) {
        let mut backlog = lock(&self.backlog);
        if !backlog.is_empty() {
            backlog.extend_from_slice(bytes);
            return;
        }
        // The socket's reader notices a broken connection.
        let written = self.stream.try_write(bytes).unwrap_or(0);
        if written < bytes.len() {
            backlog.extend_from_slice(&bytes[written..]);
            tokio::spawn(self.clone().flush());
        }
    }

    async fn flush(self: Arc<Self>) {
        while self.stream.writable().await.is_ok() {
            let mut backlog = lock(&self.backlog);
            match self.stream.try_write(&backlog) {
                Ok(written) => drop(backlog.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            if backlog.is_empty() {
                *backlog = Vec::new();
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

/// The bench's connection to the floor.
pub struct Publisher(tokio::sync::Mutex<TcpStream>);

impl Publisher {
    /// Publishes on this connection.
    pub fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(tokio::sync::Mutex::new(stream)))
    }

    /// Sends a [`message`].
    pub async fn send(&self, message: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.lock().await.write_all(message).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_and_a_cut_one_waits() {
        let bytes = message("job", b"frame", true);
        assert_eq!(first(&bytes), Some((true, "job", &b"frame"[..], bytes.len())));
        assert_eq!(first(&bytes[..bytes.len() - 1]), None);
    }
}
