//! What is asked for, and what comes of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_domain::{
    event::{Progress, VideoInfo},
    failure::FailureKind,
    submission::{Quality, SourceUrl},
};

use crate::error::Reason;

/// What to download, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The address.
    pub url: &'a SourceUrl,
    /// The best quality wanted: something better is taken only where there is nothing else.
    pub quality: Option<Quality>,
    /// A folder that exists and belongs to this attempt alone: tools use it for their temporary files as well. It is
    /// empty, or as an earlier attempt at the same job has left it: what the download can resume from stays, the rest
    /// is removed.
    pub folder: &'a Path,
    /// The HTTP proxy through which everything goes, if any, like `http://127.0.0.1:3128`. The environment's is not
    /// used.
    pub proxy: Option<&'a str>,
    /// What is too much.
    pub bounds: Bounds,
}

/// What is too much of a video.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes, of all files that make up the video. A download is stopped as soon as it is known to exceed them; what
    /// ffmpeg fetches by itself is measured when it is complete.
    pub bytes_max: u64,
    /// Where the source reports no duration, the file's own decides.
    pub duration_max: Duration,
}

impl Default for Bounds {
    /// None.
    fn default() -> Self {
        Self { bytes_max: u64::MAX, duration_max: Duration::from_secs(u64::from(u32::MAX)) }
    }
}

impl Bounds {
    pub(crate) fn too_large(&self) -> Reason {
        Reason::new(FailureKind::TooLarge, &format!("more than {} bytes", self.bytes_max))
    }

    pub(crate) fn too_long(&self) -> Reason {
        Reason::new(FailureKind::TooLong, &format!("longer than {} s", self.duration_max.as_secs()))
    }
}

/// What a download reports on the way.
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
    /// For the name under which it is stored, without a dot; one of a short list of safe ones. It may differ from the
    /// path's.
    pub extension: String,
    /// MIME type.
    pub content_type: String,
    /// What the source says, completed by what the file says.
    pub info: VideoInfo,
}
