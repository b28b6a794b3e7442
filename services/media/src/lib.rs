//! One video: from an address to a file that is known to be video or sound.
//!
//! yt-dlp does the work, in a process group of its own that never outlives the call. Its output becomes [`Step`]s, its
//! error messages become kinds of failure, and ffprobe examines the file that it leaves before the file counts as a
//! video.
//!
//! This crate handles foreign bytes: submitted addresses, and what the sites behind them send. It therefore depends on
//! the domain alone and reads no credentials; it knows neither NATS nor the object store. The egress guard, the sandbox
//! and the direct path belong here as well.
//!
//! The modules stand in the order in which a video meets them.

mod request;
mod error;

mod tools;
mod process;

mod part;
mod downloader;

mod probe;
mod info;
mod formats;

use millrace_domain::failure::FailureKind;
use tokio_util::sync::CancellationToken;

pub use self::{
    error::{MediaError, Reason},
    part::is_in as can_be_resumed,
    request::{Bounds, Media, Request, Step},
    tools::{ToolError, Tools, Versions, YT_DLP_VERSION_MIN},
};

/// Downloads one video, and calls `steps` on the way; `steps` must not block.
///
/// Canceling the token makes this return within [`millrace_domain::limits::TOOL_TERMINATE_GRACE`] and a few
/// milliseconds. Dropping the future blocks for some milliseconds. On every return, no process is left that writes to
/// the folder. The total time has no limit: only the token ends a download from a server that sends a byte now and
/// then.
///
/// # Errors
/// [`MediaError::Canceled`], or the reason of the failure. The folder may then hold parts of files; [`can_be_resumed`]
/// reports whether the next attempt can use them.
pub async fn download(
    tools: &Tools,
    request: Request<'_>,
    steps: impl FnMut(Step),
    cancel: &CancellationToken,
) -> Result<Media, MediaError> {
    let bounds = request.bounds;
    let (name, info) = downloader::run(tools, request, steps, cancel).await?;
    let path = request.folder.join(&name);
    let size = match tokio::fs::symlink_metadata(&path).await {
        Ok(meta) if meta.is_file() && meta.len() > 0 => meta.len(),
        _ => {
            return Err(
                Reason::new(FailureKind::DownloadFailed, "the downloader reported a file that does not exist").into()
            );
        }
    };
    if size > bounds.bytes_max {
        return Err(bounds.too_large().into());
    }
    let probed = probe::probe(tools, request.folder, &name, cancel).await?;
    if probed.info.duration.is_some_and(|seconds| seconds > bounds.duration_max.as_secs()) {
        return Err(bounds.too_long().into());
    }
    let named = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let (extension, content_type) = formats::of(named, &probed.container, probed.has_video);
    let info = info.or(&probed.info);
    Ok(Media { path, size, extension: extension.to_owned(), content_type: content_type.to_owned(), info })
}
