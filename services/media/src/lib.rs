//! One video: the downloader as a process, from an address to a file that is known to be video or sound.
//!
//! yt-dlp does the work, in a process group of its own that never outlives the call. What it says on the way becomes [`Step`]s, what it
//! says when it fails becomes one of our kinds of failure, and what it leaves is looked into by ffprobe before anybody calls it a video.

mod tools;
mod process;
mod part;
mod downloader;
mod probe;
mod formats;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_domain::{
    event::{Progress, VideoInfo},
    failure::FailureKind,
    limits::MIXED_RUNS_MAX,
    submission::{Quality, SourceUrl},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    downloader::classify::Reason,
    part::is_in as can_be_resumed,
    tools::{ToolError, Tools, Versions, YT_DLP_VERSION_MIN},
};
use self::{
    downloader::{
        command,
        session::{RunEnd, Session, Stopped},
    },
    part::Part,
    process::RunError,
};

/// What to download, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The address.
    pub url: &'a SourceUrl,
    /// The best quality wanted: something better is taken only where there is nothing else.
    pub quality: Option<Quality>,
    /// A folder that exists and belongs to this attempt alone: tools use it for their temporary files as well. It is empty, or as an
    /// earlier attempt at the same job has left it: what can be gone on from is, and the rest is removed.
    pub folder: &'a Path,
    /// The HTTP proxy through which everything goes, if any, like `http://127.0.0.1:3128`. The environment's is not used.
    pub proxy: Option<&'a str>,
    /// What is too much.
    pub bounds: Bounds,
}

/// What is too much of a video.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes, of all files that make up the video. A download is stopped as soon as it is known to pass them; what ffmpeg
    /// fetches by itself is looked at when it is there.
    pub bytes_max: u64,
    /// Where the source does not tell, what the file says decides.
    pub duration_max: Duration,
}

impl Default for Bounds {
    /// None.
    fn default() -> Self {
        Self { bytes_max: u64::MAX, duration_max: Duration::from_secs(u64::from(u32::MAX)) }
    }
}

/// What is known in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What the source says of the video. Once, before any progress.
    Info(VideoInfo),
    /// The download goes on from so many bytes of an earlier one: the source has shown that it still has the same file.
    Resumed(u64),
    /// How far the download has come. Over all of a download it falls neither in bytes nor as a part of the whole.
    Progress(Progress),
}

/// A file that holds video or sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Where it is: in the request's folder, as a regular file.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// For the name under which it is stored, without a dot; one of a short list of safe ones. It may differ from the path's.
    pub extension: String,
    /// MIME type.
    pub content_type: String,
    /// What the source says, completed by what the file says.
    pub info: VideoInfo,
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The token was canceled.
    #[error("canceled")]
    Canceled,
    /// The download failed.
    #[error("{}: {}", .0.kind.code(), .0.detail)]
    Failed(Reason),
}

impl MediaError {
    /// What clients are told.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Canceled => FailureKind::Canceled,
            Self::Failed(reason) => reason.kind,
        }
    }

    /// How long the source wants to be left alone, if it has said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Canceled => None,
            Self::Failed(reason) => reason.retry_after,
        }
    }
}

impl From<Reason> for MediaError {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl From<RunError> for MediaError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Canceled => Self::Canceled,
            RunError::Io(error) => Self::Failed(Reason::new(FailureKind::WorkerFailed, &error.to_string())),
        }
    }
}

/// Downloads one video. `steps` is called on the way; it must not block.
///
/// Canceling the token makes this return within [`millrace_domain::limits::TOOL_TERMINATE_GRACE`] and a few milliseconds. Dropping the
/// future blocks for some milliseconds. Either way, as on any other return, no process is left that writes to the folder. There is no
/// limit on the whole: a server that sends a byte now and then is waited for until somebody cancels.
///
/// # Errors
/// [`MediaError::Canceled`], or what went wrong. The folder may hold parts of files then; [`can_be_resumed`] tells whether they are of use.
pub async fn download(
    tools: &Tools,
    request: Request<'_>,
    steps: impl FnMut(Step),
    cancel: &CancellationToken,
) -> Result<Media, MediaError> {
    let bounds = request.bounds;
    let mut session = Session::new(steps, bounds);
    let mut runs = 1;
    let (name, info) = loop {
        match run(tools, request, &mut session, cancel).await? {
            RunEnd::File(name, info) => break (name, info),
            RunEnd::Again if runs < MIXED_RUNS_MAX => {
                runs += 1;
                tracing::info!(url = %request.url, "the file at the source is another one than before; its download starts over");
            }
            RunEnd::Again => {
                return Err(Reason::new(
                    FailureKind::SourceBroken,
                    "the file at the source changes while it is downloaded",
                )
                .into());
            }
        }
    };
    let path = request.folder.join(&name);
    let size = match tokio::fs::symlink_metadata(&path).await {
        Ok(meta) if meta.is_file() && meta.len() > 0 => meta.len(),
        _ => {
            return Err(
                Reason::new(FailureKind::DownloadFailed, "the downloader told of a file that is not there").into()
            );
        }
    };
    if size > bounds.bytes_max {
        return Err(too_large(bounds).into());
    }
    let probed = probe::probe(tools, request.folder, &name, cancel).await?;
    if probed.info.duration.is_some_and(|seconds| seconds > bounds.duration_max.as_secs()) {
        return Err(too_long(bounds).into());
    }
    let named = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let (extension, content_type) = formats::of(named, &probed.container, probed.has_video);
    let info = info.or(&probed.info);
    Ok(Media { path, size, extension: extension.to_owned(), content_type: content_type.to_owned(), info })
}

/// Runs the downloader once.
async fn run(
    tools: &Tools,
    request: Request<'_>,
    session: &mut Session<impl FnMut(Step)>,
    cancel: &CancellationToken,
) -> Result<RunEnd, MediaError> {
    let stop = cancel.child_token();
    let part = Part::open(request).map_err(RunError::from)?;
    let mut run = session.run(part, stop.clone());
    match process::run(command::yt_dlp(tools, &request), |line| run.take(line), &stop).await {
        Err(RunError::Canceled) if !cancel.is_cancelled() => match run.stopped() {
            Some(Stopped::TooLarge) => Err(too_large(request.bounds).into()),
            Some(Stopped::Mixed) => Ok(RunEnd::Again),
            None => Err(MediaError::Canceled),
        },
        ended => Ok(run.end(&ended?)?),
    }
}

fn too_large(bounds: Bounds) -> Reason {
    Reason::new(FailureKind::TooLarge, &format!("more than {} bytes", bounds.bytes_max))
}

fn too_long(bounds: Bounds) -> Reason {
    Reason::new(FailureKind::TooLong, &format!("longer than {} s", bounds.duration_max.as_secs()))
}
