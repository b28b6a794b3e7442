//! Finished jobs in the log, as workers write them.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::{StreamExt, TryStreamExt, stream};
use millrace_domain::{
    Event, EventBody, JobId,
    event::{Progress, Provider, StoredFile},
    files,
    subjects::{PROJECTOR_CONSUMER, STREAM, WORKERS_CONSUMER},
};
use millrace_runtime::{
    log::{Append, Log},
    now,
};

use super::super::edge::job;

/// Progress events of a job: a download of ten seconds with four events a second.
const PROGRESS: u64 = 40;
const FILE_BYTES: u64 = 48_123_904;
/// Jobs in flight at once.
const JOBS_IN_FLIGHT: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);
const CATCH_UP_MAX: Duration = Duration::from_secs(600);

/// Events of each job.
pub const EVENTS: u64 = PROGRESS + 7;

/// Makes this number of finished jobs, and waits until the projector has written their states and the queue is empty.
pub async fn make(client: &async_nats::Client, count: usize) -> anyhow::Result<()> {
    let log = Log::open(client, &prometheus::Registry::new()).await?;
    let context = jetstream::new(client.clone());
    let jobs = async {
        let jobs = (0..count).map(|_| one(&log, JobId::from_entropy(rand::random())));
        stream::iter(jobs).buffer_unordered(JOBS_IN_FLIGHT).try_collect::<()>().await?;
        for consumer in [WORKERS_CONSUMER, PROJECTOR_CONSUMER] {
            done(&context, consumer).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        made = jobs => made,
        Err(error) = acknowledge(&context) => Err(error),
    }
}

/// Waits until a consumer has nothing pending.
pub async fn done(context: &jetstream::Context, consumer: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + CATCH_UP_MAX;
    let mut consumer: PullConsumer = context.get_consumer_from_stream(consumer, STREAM).await?;
    loop {
        let info = consumer.info().await?;
        if info.num_pending == 0 && info.num_ack_pending == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the consumer {} is not done after {CATCH_UP_MAX:?}", info.name);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes each submission from the queue and acknowledges it, as workers do.
async fn acknowledge(context: &jetstream::Context) -> anyhow::Result<()> {
    let queue: PullConsumer = context.get_consumer_from_stream(WORKERS_CONSUMER, STREAM).await?;
    loop {
        let mut messages = queue.fetch().max_messages(256).messages().await?;
        let mut count = 0;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| anyhow::anyhow!(error)).context("cannot pull from the queue")?;
            message.ack().await.map_err(|error| anyhow::anyhow!(error))?;
            count += 1;
        }
        if count == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn one(log: &Log, id: JobId) -> anyhow::Result<()> {
    let mut expected = 0;
    for body in life(&id) {
        let is_submission = matches!(body, EventBody::Submitted(_));
        let seq = log.append(&Append::new(&id, expected, &Event { at: now(), body })).await?;
        expected = if is_submission { 0 } else { seq };
    }
    Ok(())
}

/// The events of a completed job.
fn life(id: &JobId) -> impl Iterator<Item = EventBody> {
    let beginning = job::beginning();
    let title = beginning.iter().find_map(|body| match body {
        EventBody::Info { video_info } => video_info.title.clone(),
        _ => None,
    });
    let progress = (1..=PROGRESS).map(|step| {
        EventBody::Progress(Progress {
            downloaded_bytes: FILE_BYTES * step / PROGRESS,
            total_bytes: Some(FILE_BYTES),
            bytes_per_second: Some(4_812_390 + step),
            eta_seconds: Some((PROGRESS - step) / 4),
        })
    });
    let file_name = files::file_name(title.as_deref(), "mp4");
    let key = files::key(id, 1, &file_name);
    let end = [
        EventBody::Downloaded { file_size: FILE_BYTES, storage_provider: Provider::S3, video_info: None },
        EventBody::Uploading {
            storage_provider: Provider::S3,
            key: Some(key.clone()),
            // As long as Amazon's upload ids.
            upload_id: Some("u".repeat(128)),
        },
        EventBody::Uploaded(StoredFile {
            key,
            file_size: FILE_BYTES,
            sha256: "9f".repeat(32),
            content_type: "video/mp4".into(),
            file_name,
        }),
        EventBody::Completed,
    ];
    beginning.into_iter().chain(progress).chain(end)
}

#[cfg(test)]
mod tests {
    use millrace_domain::{Entry, Stage, fold_all};

    use super::*;

    #[test]
    fn every_event_of_a_job_fits_and_it_is_completed() {
        let id: JobId = "a".parse().unwrap();
        let entries: Vec<_> = life(&id)
            .zip(1..)
            .map(|(body, seq)| {
                let kind = body.kind();
                Entry { seq, kind, event: Ok(Event { at: now(), body }) }
            })
            .collect();
        assert_eq!(entries.len() as u64, EVENTS);
        let state = fold_all(None, &id, &entries).unwrap();
        assert_eq!((state.stage, state.progress), (Stage::Completed, 100));
    }
}
