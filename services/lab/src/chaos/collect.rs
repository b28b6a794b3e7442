//! Collects what remains once the system is idle: the log, the states, the store's files, processes, and files on disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use async_nats::{Client, jetstream};
use data_encoding::HEXLOWER;
use millrace_domain::{
    Event, JobId,
    subjects::{self, STATE_BUCKET, STREAM},
};
use millrace_harness::s3::{BUCKET, S3Server};
use millrace_runtime::direct;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::history::{Logged, Object};

const BATCH: usize = 256;

/// Every message of the log, in its order.
pub async fn log(client: &Client) -> anyhow::Result<Vec<Logged>> {
    let mut log = Vec::new();
    each(client, STREAM, |stored| {
        if let Some((kind, id)) = subjects::parse(&stored.subject) {
            let message_id = stored.message_id.unwrap_or_default();
            log.push(Logged { seq: stored.seq, message_id, id, kind, event: Event::decode(&stored.payload) });
        }
    })
    .await?;
    Ok(log)
}

/// The jobs of the log that have no end yet.
pub async fn unended(client: &Client) -> anyhow::Result<Vec<JobId>> {
    let mut states = BTreeMap::new();
    for Logged { seq, id, kind, event, .. } in log(client).await? {
        let state = states.remove(&id);
        let entry = millrace_domain::Entry { seq, kind, event };
        if let Some(state) = millrace_domain::fold(state, &id, &entry) {
            states.insert(id, state);
        }
    }
    Ok(states.into_iter().filter(|(_, state)| !state.is_end()).map(|(id, _)| id).collect())
}

/// The bucket of states.
pub async fn states(client: &Client) -> anyhow::Result<BTreeMap<String, Value>> {
    let prefix = format!("$KV.{STATE_BUCKET}.");
    let mut states = BTreeMap::new();
    each(client, &subjects::bucket_stream(STATE_BUCKET), |stored| {
        let key = stored.subject.strip_prefix(&prefix).unwrap_or(&stored.subject).to_owned();
        states.insert(key, serde_json::from_slice(&stored.payload).unwrap_or_default());
    })
    .await?;
    Ok(states)
}

async fn each(client: &Client, stream: &str, mut take: impl FnMut(direct::Stored)) -> anyhow::Result<()> {
    let info = jetstream::new(client.clone()).get_stream(stream).await.context("the stream is unavailable")?;
    let last = info.cached_info().state.last_sequence;
    let mut from = 1;
    while from <= last {
        let (batch, _) = direct::next(client, stream, ">", from, BATCH).await?;
        // A stale replica answered; another one may answer the next request.
        let Some(newest) = batch.last() else { continue };
        from = newest.seq + 1;
        batch.into_iter().for_each(&mut take);
    }
    Ok(())
}

/// Every file in the bucket.
pub fn objects(s3: &S3Server) -> anyhow::Result<BTreeMap<String, Object>> {
    let bucket = s3.root().join(BUCKET);
    let mut objects = BTreeMap::new();
    for path in files(&bucket) {
        let bytes = fs::read(&path)?;
        let key = path.strip_prefix(&bucket)?.display().to_string();
        let sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
        objects.insert(key, Object { size: bytes.len() as u64, sha256 });
    }
    Ok(objects)
}

/// Unfinished uploads, neither completed nor aborted, by the names of the files in which the store keeps them beside
/// its bucket.
pub fn uploads(s3: &S3Server) -> Vec<String> {
    beside_bucket(s3, ".upload-")
}

/// Parts of aborted uploads. This store keeps a part that arrives while its upload is aborted, where no client can see
/// it.
pub fn strays(s3: &S3Server) -> usize {
    beside_bucket(s3, ".upload_id-").len()
}

fn beside_bucket(s3: &S3Server, begin: &str) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let paths = files(s3.root()).into_iter().filter(|path| path.parent() == Some(s3.root()));
    paths.filter_map(name).filter(|name| name.starts_with(begin)).collect()
}

/// Every file under a folder that is not a lock.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Processes whose working directory is in this folder, or whose home it is.
pub fn processes(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let home = format!("HOME={}", folder.display());
    let of_folder = |process: &Path| {
        fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
            || fs::read(process.join("environ")).is_ok_and(|environ| {
                environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(home.as_bytes()))
            })
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| of_folder(path))
        .map(|path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            format!("{}: {}", path.display(), String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}
