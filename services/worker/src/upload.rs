//! Uploads a downloaded file to the object store.

use millrace_domain::{EventBody, JobState, event::StoredFile, files};
use millrace_media::Media;
use millrace_runtime::{blobs::Labels, failpoints};
use tokio_util::sync::CancellationToken;

use crate::{Worker, journal::Journal, upkeep::cleaning};

/// Stores the file of the attempt that `state` has begun, and reports it.
///
/// The order makes every upload known to a process that can abort it: abort the uploads of earlier attempts, begin the
/// upload, append it to the log, and only then send bytes.
///
/// # Errors
/// The store does not accept the file, or the attempt was stopped. An upload that began is aborted.
pub async fn store(
    worker: &Worker,
    state: &JobState,
    media: &Media,
    journal: &Journal,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let storage_provider = worker.blobs.provider();
    if state.attempt > 1 {
        cleaning::clean_up(&worker.blobs, state).await?;
    }
    let file_name = files::file_name(media.info.title.as_deref(), &media.extension);
    let key = files::key(&state.job_id, state.attempt, &file_name);
    let labels = Labels {
        content_type: media.content_type.clone(),
        content_disposition: files::content_disposition(&file_name),
    };
    failpoints::reach("before_create_upload");
    let upload = worker.blobs.begin(&key, &labels).await?;
    failpoints::reach("after_create_upload");
    let upload_id = upload.id().map(str::to_owned);
    let begun = EventBody::Uploading { storage_provider, key: Some(key.clone()), upload_id };
    if cancel.run_until_cancelled(journal.change_and_wait(begun)).await != Some(true) {
        upload.abort().await?;
        anyhow::bail!("attempt stopped");
    }
    let receipt = upload.send(&media.path, cancel).await?;
    worker.metrics.stored_bytes.inc_by(receipt.size);
    journal.change(EventBody::Uploaded(StoredFile {
        key,
        file_size: receipt.size,
        sha256: receipt.sha256,
        content_type: media.content_type.clone(),
        file_name,
    }));
    Ok(())
}
