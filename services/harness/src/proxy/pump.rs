//! Moves bytes from one end of a link to the other.

use std::{collections::BTreeMap, io, sync::atomic::Ordering};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    MessageFault, Mode, Shared, State,
    frames::{Frame, Frames},
};

const CHUNK_BYTES: usize = 64 * 1024;

/// Returns when bytes may move.
pub(super) async fn flowing(state: &mut watch::Receiver<State>) {
    // An error means that the proxy is gone, so nothing stalls.
    let _ = state.wait_for(|state| state.mode != Mode::Stall).await;
}

/// Passes bytes on in both directions until either end closes.
pub(super) async fn both(client: TcpStream, server: TcpStream, shared: &Shared) -> io::Result<()> {
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    tokio::select! {
        ended = up(client_in, server_out, shared.state.subscribe()) => ended,
        ended = down(server_in, client_out, shared) => ended,
    }
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = from.read(&mut chunk).await?;
        if bytes == 0 {
            return Ok(());
        }
        hold(&mut state).await;
        to.write_all(&chunk[..bytes]).await?;
    }
}

/// Waits as the link's mode requires.
async fn hold(state: &mut watch::Receiver<State>) {
    flowing(state).await;
    let mode = state.borrow().mode;
    if let Mode::Delay(pause) = mode {
        sleep(pause).await;
    }
}

/// Moves the server's bytes; frame by frame once a fault of messages is set, which requires a nats-server.
async fn down(mut from: OwnedReadHalf, to: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let mut state = shared.state.subscribe();
    let mut luck =
        Luck { to, shared, rng: StdRng::seed_from_u64(shared.seed ^ number.rotate_left(32)), late: BTreeMap::new() };
    let mut frames = Frames::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let due = luck.late.keys().next().map(|(due, _)| *due);
        tokio::select! {
            bytes = from.read(&mut chunk) => {
                let bytes = bytes?;
                if bytes == 0 {
                    return Ok(());
                }
                hold(&mut state).await;
                let fault = state.borrow().messages.clone();
                luck.take(frames.push(&chunk[..bytes]), fault.as_ref()).await?;
            }
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                hold(&mut state).await;
                luck.pass_late().await?;
            }
        }
    }
}

struct Luck<'a> {
    to: OwnedWriteHalf,
    shared: &'a Shared,
    rng: StdRng,
    /// Delayed frames, by due time and order of arrival.
    late: BTreeMap<(Instant, u64), Vec<u8>>,
}

impl Luck<'_> {
    async fn take(&mut self, frames: Vec<Frame>, fault: Option<&MessageFault>) -> io::Result<()> {
        let mut now = Vec::new();
        for frame in frames {
            let hit = fault.filter(|fault| frame.subject.as_deref().is_some_and(|it| it.starts_with(&fault.subject)));
            let Some(fault) = hit else {
                now.extend(frame.bytes);
                continue;
            };
            if self.rng.random_bool(fault.lost) {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            } else if self.rng.random_bool(fault.late) {
                let order = self.shared.late.fetch_add(1, Ordering::Relaxed);
                self.late.insert((Instant::now() + fault.lateness, order), frame.bytes);
            } else {
                now.extend(frame.bytes);
            }
        }
        self.to.write_all(&now).await
    }

    async fn pass_late(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(entry) = self.late.first_entry()
            && entry.key().0 <= now
        {
            let bytes = entry.remove();
            self.to.write_all(&bytes).await?;
        }
        Ok(())
    }
}
