//! A redis-server as back ends use it: the newest state of each job under a key, each change on a channel.

use std::path::Path;

use anyhow::{Context, bail};
use millrace_domain::JobId;
use millrace_harness::{
    ports::free_port,
    processes::{Service, ServiceOptions},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{Mutex, mpsc, oneshot},
};

use super::connect;

/// Redis answers `SET` and `PUBLISH` with one line each.
const REPLIES: usize = 2;

/// redis-server and a publisher's connection.
pub struct RedisSide {
    service: Service,
    port: u16,
    publisher: Mutex<Publisher>,
}

struct Publisher {
    write: OwnedWriteHalf,
    /// The callers that wait for replies, in the order of the commands.
    waiting: mpsc::UnboundedSender<Option<oneshot::Sender<()>>>,
}

impl RedisSide {
    /// Starts it without persistence: it guarantees less than a log, and is faster for it.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let port = free_port();
        let port_text = port.to_string();
        let args = ["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--appendonly", "no"];
        let args = args.map(str::to_owned).to_vec();
        let options = ServiceOptions { args, dir: Some(folder.to_owned()), ..ServiceOptions::default() };
        let mut service = Service::spawn_program("redis-server", program, options)?;
        let stream = connect(&mut service, "redis-server", ([127, 0, 0, 1], port).into()).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (waiting, receiver) = mpsc::unbounded_channel();
        tokio::spawn(read_replies(read, receiver));
        Ok(Self { service, port, publisher: Mutex::new(Publisher { write, waiting }) })
    }

    /// The address for other clients.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Sets the job's state and publishes it, and waits for the answers.
    pub async fn publish(&self, id: &JobId, state: &str) -> anyhow::Result<()> {
        let (sender, stored) = oneshot::channel();
        self.send(id, state, Some(sender)).await?;
        stored.await.context("redis-server has refused a command, or has exited")
    }

    /// Sets and publishes the job's state without waiting.
    pub async fn offer(&self, id: &JobId, state: &str) -> anyhow::Result<()> {
        self.send(id, state, None).await
    }

    async fn send(&self, id: &JobId, state: &str, stored: Option<oneshot::Sender<()>>) -> anyhow::Result<()> {
        let mut bytes = command(&["SET", &format!("state:{id}"), state]);
        bytes.extend(command(&["PUBLISH", &format!("job:{id}"), state]));
        let mut publisher = self.publisher.lock().await;
        publisher.waiting.send(stored).context("redis-server has refused a command, or has exited")?;
        Ok(publisher.write.write_all(&bytes).await?)
    }
}

/// Encodes a command in Redis' protocol.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    bytes.into_bytes()
}

/// Ends at the first error; then every waiting caller gets an error.
async fn read_replies(
    read: OwnedReadHalf,
    mut waiting: mpsc::UnboundedReceiver<Option<oneshot::Sender<()>>>,
) -> anyhow::Result<()> {
    let mut lines = BufReader::new(read).lines();
    while let Some(stored) = waiting.recv().await {
        for _ in 0..REPLIES {
            let line = lines.next_line().await?.context("end of stream")?;
            if line.starts_with('-') {
                bail!("redis-server: {line}");
            }
        }
        if let Some(stored) = stored {
            // The caller may have stopped waiting.
            let _ = stored.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_strings_with_their_lengths() {
        assert_eq!(command(&["SET", "a", "äö"]), "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\näö\r\n".as_bytes());
    }
}
