//! Clients that follow the contract: they reconnect to any edge and report the last sequence that they have seen.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{
    history::{Seen, Session},
    recorder::now,
    world::World,
};

/// The server pings more often; a connection that is silent for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Between a close and the next connection, at most.
const PAUSE_MAX_MS: u64 = 1_000;
/// Between the end of a job and the next one.
const LOOK_AROUND_MAX_MS: u64 = 4_000;
/// How often a client moves to another edge in the middle of a job.
const MOVE_CHANCE: f64 = 0.02;
/// Clients watch one of the newest jobs.
const JOBS_NEWEST: usize = 8;

/// The jobs to watch, and whether more will come.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    pub ids: Vec<String>,
    pub over: bool,
}

/// Watches one job after the other until there are no more, each to its end.
pub async fn client(world: Arc<World>, number: usize, seed: u64, jobs: watch::Receiver<Jobs>) {
    let mut rng = StdRng::seed_from_u64(seed ^ (number as u64).rotate_left(24));
    // Spread over the first seconds.
    sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
    loop {
        let job = {
            let jobs = jobs.borrow();
            if jobs.over {
                return;
            }
            let newest = jobs.ids.len().saturating_sub(JOBS_NEWEST);
            match jobs.ids.len() {
                0 => None,
                count => Some(jobs.ids[rng.random_range(newest..count)].clone()),
            }
        };
        match job {
            Some(job) => {
                watch_to_end(&world, number, job, &mut rng).await;
                sleep(Duration::from_millis(rng.random_range(500..LOOK_AROUND_MAX_MS))).await;
            }
            None => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The session is recorded from its beginning: one that never ends counts too.
async fn watch_to_end(world: &World, client: usize, job: String, rng: &mut StdRng) {
    let place = {
        let mut kept = world.recorder.kept();
        kept.sessions.push(Session { client, job: job.clone(), began_at: now(), ..Session::default() });
        kept.sessions.len() - 1
    };
    let mut connection = 0;
    loop {
        if connected(world, place, &job, connection, rng).await {
            return;
        }
        connection += 1;
        sleep(Duration::from_millis(rng.random_range(50..PAUSE_MAX_MS))).await;
    }
}

/// One connection; returns whether the client saw the job's end.
async fn connected(world: &World, place: usize, job: &str, connection: u32, rng: &mut StdRng) -> bool {
    let since = world.recorder.kept().sessions[place].seen.last().map_or(0, |seen| seen.seq);
    let edge = world.edges[rng.random_range(0..world.edges.len())];
    let url = format!("ws://{edge}/ws/download/{job}?since={since}");
    let Ok(Ok((mut socket, _))) = timeout(CONNECT_MAX, connect_async(url)).await else { return false };
    loop {
        match timeout(SILENCE_MAX, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                let Ok(mut message) = serde_json::from_str::<Value>(&text) else { continue };
                let data = message["data"].take();
                let number = |name: &str| data[name].as_u64().unwrap_or(0);
                let end = matches!(data["status"].as_str(), Some("completed" | "failed"));
                let seen = Seen {
                    at: now(),
                    connection,
                    seq: number("seq"),
                    attempt: number("attempt"),
                    progress: number("progress"),
                    end,
                };
                let mut kept = world.recorder.kept();
                let session = &mut kept.sessions[place];
                session.seen.push(seen);
                session.last = Some(data);
                if end {
                    return true;
                }
                drop(kept);
                if rng.random_bool(MOVE_CHANCE) {
                    return false;
                }
            }
            Ok(Some(Ok(Message::Close(frame)))) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                world.recorder.kept().sessions[place].closes.push(code);
                return false;
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) | Err(_) => return false,
        }
    }
}
