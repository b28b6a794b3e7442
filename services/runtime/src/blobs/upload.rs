//! The upload of one file to the store.

use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use bytes::BytesMut;
use futures::future::BoxFuture;
use object_store::{
    MultipartUpload, PutPayload, PutResult, Result, UploadPart, WriteMultipart,
    aws::AmazonS3,
    multipart::{MultipartStore, PartId},
    path::Path as Key,
};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use millrace_domain::limits::{UPLOAD_PART_BYTES, UPLOAD_PARTS_IN_FLIGHT_MAX};

use super::Receipt;
use crate::failpoints;

/// An upload that has begun and has no bytes yet. Dropping it cleans up nothing: the caller sends or aborts it.
#[derive(Debug)]
pub struct Upload {
    pub(super) id: Option<String>,
    pub(super) parts: Box<dyn MultipartUpload>,
}

impl Upload {
    /// The store's id of the upload, if it has one; another worker needs it to abort the upload.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Sends the file at `path`, hashes it on the way and completes the upload. If it is canceled or fails, it aborts
    /// the upload; dropping the future does not.
    ///
    /// # Errors
    /// When the file cannot be read, the store refuses it, or `cancel` was cancelled.
    pub async fn send(self, path: &Path, cancel: &CancellationToken) -> anyhow::Result<Receipt> {
        let mut parts = WriteMultipart::new_with_chunk_size(self.parts, UPLOAD_PART_BYTES);
        let mut hash = Sha256::new();
        let mut size = 0;
        let sending = async {
            let mut file =
                tokio::fs::File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?;
            loop {
                let mut chunk = BytesMut::with_capacity(1024 * 1024);
                while chunk.len() < chunk.capacity() && file.read_buf(&mut chunk).await? > 0 {}
                if chunk.is_empty() {
                    // Waits for the last parts here too, where a cancel ends the wait.
                    parts.wait_for_capacity(0).await.context("cannot store a part")?;
                    return Ok::<_, anyhow::Error>(());
                }
                hash.update(&chunk);
                size += chunk.len() as u64;
                parts.wait_for_capacity(UPLOAD_PARTS_IN_FLIGHT_MAX).await.context("cannot store a part")?;
                parts.put(chunk.freeze());
                if size.is_multiple_of(UPLOAD_PART_BYTES as u64) {
                    failpoints::reach("between_parts");
                }
            }
        };
        let sent = cancel.run_until_cancelled(sending).await.unwrap_or_else(|| Err(anyhow::anyhow!("canceled")));
        if let Err(error) = sent {
            if let Err(error) = parts.abort().await {
                tracing::warn!(%error, "cannot abort unfinished upload; retrying before the job ends");
            }
            return Err(error);
        }
        failpoints::reach("before_complete_upload");
        parts.finish().await.context("cannot complete the upload")?;
        failpoints::reach("after_complete_upload");
        Ok(Receipt { size, sha256: data_encoding::HEXLOWER.encode(&hash.finalize()) })
    }

    /// Aborts an upload of which no part was sent.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn abort(mut self) -> anyhow::Result<()> {
        Ok(self.parts.abort().await?)
    }
}

/// The parts of an upload to S3. Unlike the type in `object_store`, it exposes the upload's id.
#[derive(Debug)]
pub(super) struct S3Parts {
    store: Arc<AmazonS3>,
    key: Key,
    id: String,
    begun: usize,
    stored: Arc<Mutex<Vec<(usize, PartId)>>>,
}

impl S3Parts {
    pub(super) fn new(store: Arc<AmazonS3>, key: Key, id: String) -> Self {
        Self { store, key, id, begun: 0, stored: Arc::default() }
    }
}

impl MultipartUpload for S3Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, key, id, index) = (self.store.clone(), self.key.clone(), self.id.clone(), self.begun);
        let stored = self.stored.clone();
        self.begun += 1;
        Box::pin(async move {
            let part = store.put_part(&key, &id, index, data).await?;
            stored.lock().unwrap_or_else(PoisonError::into_inner).push((index, part));
            Ok(())
        })
    }

    fn complete<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = Result<PutResult>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let mut parts = std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner));
        parts.sort_unstable_by_key(|(index, _)| *index);
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        Box::pin(async move { self.store.complete_multipart(&self.key, &self.id, parts).await })
    }

    fn abort<'a, 'b>(&'a mut self) -> BoxFuture<'b, Result<()>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.store.abort_multipart(&self.key, &self.id))
    }
}
