//! A download's request, steps and result.

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

/// What to download, and the folder for it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The address.
    pub url: &'a SourceUrl,
    /// The highest quality wanted: a higher one is taken only if there is no other.
    pub quality: Option<Quality>,
    /// An existing folder that belongs to this attempt alone: tools use it for their temporary files as well. It is
    /// empty, or as an earlier attempt at the same job left it. The download keeps what it can resume from and removes
    /// the rest.
    pub folder: &'a Path,
    /// The HTTP proxy for all traffic, if any, like `http://127.0.0.1:3128`. The environment's proxy is not used.
    pub proxy: Option<&'a str>,
    /// Bounds of the video.
    pub bounds: Bounds,
}

/// Bounds of a video.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of all files that make up the video. A download that exceeds them is stopped at once; what ffmpeg fetches
    /// by itself is measured when it is complete.
    pub bytes_max: u64,
    /// If the source reports no duration, the file's own decides.
    pub duration_max: Duration,
}

impl Default for Bounds {
    /// No bounds.
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
    /// The source's information on the video. Reported once, before any progress.
    Info(VideoInfo),
    /// The download resumes after this many bytes of an earlier one: the source has shown that it still has the same
    /// file.
    Resumed(u64),
    /// The progress of the download. Within a download it never falls, neither in bytes nor as a part of the whole.
    Progress(Progress),
}

/// A file that holds video or sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Its path: a regular file in the request's folder.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// The extension for the stored file's name, without a dot, from a short list of safe ones. It may differ from the
    /// path's.
    pub extension: String,
    /// MIME type.
    pub content_type: String,
    /// The source's information, completed from the file.
    pub info: VideoInfo,
}
