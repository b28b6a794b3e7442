//! One video: the downloader as a process, from an address to a file that is known to be video or sound.
//!
//! yt-dlp does the work, in a process group of its own that never outlives the call. What it says on the way becomes [`Step`]s, what it
//! says when it fails becomes one of our kinds of failure, and what it leaves is looked into by ffprobe before anybody calls it a video.

mod classify;
mod command;
mod formats;
mod lines;
mod probe;
mod process;
mod progress;
mod protocol;
mod tools;

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use millrace_domain::{
    event::{Failure, Progress, VideoInfo},
    failure::FailureKind,
    submission::{Quality, SourceUrl},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    classify::Reason,
    tools::{ToolError, Tools, Versions, YT_DLP_VERSION_MIN},
};
use self::{
    process::{Ended, RunError},
    progress::Combined,
    protocol::Line,
};

/// What to download, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The address.
    pub url: &'a SourceUrl,
    /// The best quality wanted: something better is taken only where there is nothing else.
    pub quality: Option<Quality>,
    /// A folder that exists, is empty, and belongs to this attempt alone: tools use it for their temporary files as well.
    pub folder: &'a Path,
    /// The HTTP proxy through which everything goes, if any, like `http://127.0.0.1:3128`. The environment's is not used.
    pub proxy: Option<&'a str>,
}

/// What is known in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What the source says of the video. Once, before any progress.
    Info(VideoInfo),
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
    /// The failure for clients: its own sentence, without the tool's words.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Canceled => FailureKind::Canceled.failure(),
            Self::Failed(reason) => reason.kind.failure(),
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
/// [`MediaError::Canceled`], or what went wrong. The folder may hold parts of files then.
pub async fn download(
    tools: &Tools,
    request: Request<'_>,
    steps: impl FnMut(Step),
    cancel: &CancellationToken,
) -> Result<Media, MediaError> {
    let mut session = Session::new(steps);
    let ended = process::run(command::yt_dlp(tools, &request), |line| session.take(line), cancel).await?;
    let (name, info) = session.end(&ended)?;
    let path = request.folder.join(&name);
    let size = match tokio::fs::symlink_metadata(&path).await {
        Ok(meta) if meta.is_file() && meta.len() > 0 => meta.len(),
        _ => {
            return Err(
                Reason::new(FailureKind::DownloadFailed, "the downloader told of a file that is not there").into()
            );
        }
    };
    let probed = probe::probe(tools, request.folder, &name, cancel).await?;
    let named = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let (extension, content_type) = formats::of(named, &probed.container, probed.has_video);
    let info = info.or(&probed.info);
    Ok(Media { path, size, extension: extension.to_owned(), content_type: content_type.to_owned(), info })
}

/// What one run of the downloader has told so far.
struct Session<S> {
    steps: S,
    live: bool,
    info: Option<VideoInfo>,
    progress: Combined,
    file: Option<String>,
    lines_ignored: u64,
}

impl<S: FnMut(Step)> Session<S> {
    fn new(steps: S) -> Self {
        Self { steps, live: false, info: None, progress: Combined::default(), file: None, lines_ignored: 0 }
    }

    fn take(&mut self, line: &str) {
        match protocol::parse(line) {
            Some(Line::Live(live)) => self.live = live,
            Some(Line::Info(info)) if self.info.is_none() => {
                self.info = Some(info.clone());
                (self.steps)(Step::Info(info));
            }
            Some(Line::Files(files)) => self.progress.plan(files, self.info.as_ref().and_then(|info| info.duration)),
            Some(Line::Progress(progress)) => {
                if let Some(progress) = self.progress.update(&progress) {
                    (self.steps)(Step::Progress(progress));
                }
            }
            Some(Line::Done(path)) => self.file = Some(path),
            Some(Line::Info(_)) | None => self.lines_ignored += 1,
        }
    }

    /// The name of the file in the folder and what is known of the video, or why there is none.
    fn end(self, ended: &Ended) -> Result<(String, VideoInfo), Reason> {
        if self.lines_ignored > 0 {
            tracing::debug!(lines = self.lines_ignored, "the downloader wrote lines that are none of ours");
        }
        if let Some(signal) = ended.status.signal() {
            return Err(Reason::new(
                FailureKind::WorkerFailed,
                &format!("the downloader was killed by signal {signal}"),
            ));
        }
        if !ended.status.success() {
            return Err(classify::classify(&ended.stderr, self.progress.begun()));
        }
        match (self.file, self.info) {
            (Some(path), info) => match Path::new(&path).file_name().and_then(|name| name.to_str()) {
                Some(name) => Ok((name.to_owned(), info.unwrap_or_default())),
                None => Err(Reason::new(FailureKind::DownloadFailed, "the downloader told of a file without a name")),
            },
            // Success without a file: the video was filtered out, or the address names an empty list.
            (None, _) if self.live => Err(Reason::new(FailureKind::LiveStream, "a live stream, now or soon")),
            (None, None) => Err(Reason::new(FailureKind::Unsupported, "the downloader found nothing and said nothing")),
            (None, Some(_)) => {
                let reason = classify::classify(&ended.stderr, self.progress.begun());
                Err(Reason::new(reason.kind, &format!("success without a file: {}", reason.detail)))
            }
        }
    }
}
