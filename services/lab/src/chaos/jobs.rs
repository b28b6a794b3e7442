//! The stream of jobs: each is submitted with an `Idempotency-Key` to one edge after another until one accepts it.

use std::{sync::Arc, time::Duration};

use millrace_domain::JobId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    clients::Jobs,
    history::{Accepted, Expected},
    source::Video,
    world::World,
};

/// Shortest pause between two submissions; on two processors, more jobs would only measure the processors.
const INTERVAL_MIN_MS: u64 = 500;
const INTERVAL_MAX_MS: u64 = 1_300;
/// Submissions in flight.
const PENDING_MAX: usize = 12;
/// Longer than an edge takes to report that the log is unavailable.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Submits jobs for this long; returns once each is accepted.
pub async fn submit(world: Arc<World>, seed: u64, length: Duration, jobs: watch::Sender<Jobs>) {
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(8));
    let until = Instant::now() + length;
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build().expect("a client");
    let mut pending = JoinSet::new();
    for number in 0.. {
        sleep(Duration::from_millis(rng.random_range(INTERVAL_MIN_MS..INTERVAL_MAX_MS))).await;
        while pending.len() >= PENDING_MAX {
            pending.join_next().await;
        }
        if Instant::now() >= until {
            break;
        }
        let (world, client, jobs) = (Arc::clone(&world), client.clone(), jobs.clone());
        let rng = StdRng::seed_from_u64(rng.random());
        pending.spawn(one(world, client, number, rng, jobs));
    }
    while pending.join_next().await.is_some() {}
}

async fn one(world: Arc<World>, client: reqwest::Client, number: u64, mut rng: StdRng, jobs: watch::Sender<Jobs>) {
    // Some files are large enough for several parts.
    let bytes = if rng.random_bool(0.04) { 9_500_000 } else { rng.random_range(250_000..1_000_000) };
    let seconds = rng.random_range(1..5);
    let video = Video { number, bytes, bytes_per_second: bytes / seconds, real: rng.random_bool(0.08) };
    let (url, expected) = match rng.random_range(0..100) {
        0..4 => (world.source.missing(number), Expected::Failure("source_not_found")),
        4..8 => (world.source.url(video), Expected::CanceledOrFile { sha256: world.source.sha256(video) }),
        _ => (world.source.url(video), Expected::File { sha256: world.source.sha256(video) }),
    };
    let body = json!({"url": url});
    let Some(id) = accepted(&world, &client, number, &body, &mut rng).await else { return };
    let cancel = matches!(expected, Expected::CanceledOrFile { .. });
    world.recorder.kept().accepted.push(Accepted { url: url.clone(), id: id.clone(), expected: expected.clone() });
    jobs.send_modify(|jobs| jobs.ids.push(id.to_string()));
    // A repeated submission is the same job, whichever edge receives it.
    if rng.random_bool(0.1)
        && let Some(again) = accepted(&world, &client, number, &body, &mut rng).await
    {
        world.recorder.kept().accepted.push(Accepted { url, id: again, expected });
    }
    if cancel {
        sleep(Duration::from_millis(rng.random_range(0..4_000))).await;
        let edge = world.edges[rng.random_range(0..world.edges.len())];
        // The cancel may arrive too late, or not at all.
        let _ = client.delete(format!("http://{edge}/api/download/{id}")).send().await;
    }
}

async fn accepted(
    world: &World,
    client: &reqwest::Client,
    number: u64,
    body: &Value,
    rng: &mut StdRng,
) -> Option<JobId> {
    loop {
        let edge = world.edges[rng.random_range(0..world.edges.len())];
        let request = client.post(format!("http://{edge}/api/download")).json(body);
        let answer = request.header("idempotency-key", format!("chaos-{number}")).send().await;
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        *world.recorder.kept().answers.entry(status).or_default() += 1;
        match answer {
            Ok(answer) if status == 202 => {
                if let Ok(state) = answer.json::<Value>().await {
                    return state["jobId"].as_str()?.parse().ok();
                }
            }
            Ok(answer) if status != 503 => {
                eprintln!("a submission was answered with {status}: {}", answer.text().await.unwrap_or_default());
                return None;
            }
            _ => {}
        }
        sleep(RETRY_PAUSE).await;
    }
}
