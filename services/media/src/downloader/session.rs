//! Handles the downloader's output, over all runs of one download and within each run.

use std::{os::unix::process::ExitStatusExt, path::Path};

use millrace_domain::{event::VideoInfo, failure::FailureKind};
use tokio_util::sync::CancellationToken;

use super::{
    classify,
    progress::Combined,
    protocol::{self, FileProgress, Line},
    traffic::Traffic,
};
use crate::{
    error::Reason,
    part::{Course, Part},
    process::Ended,
    request::{Bounds, Step},
};

/// One download, over all of its runs.
pub(crate) struct Session<S> {
    steps: S,
    bounds: Bounds,
    info: Option<VideoInfo>,
    progress: Combined,
}

/// One run of the downloader.
pub(crate) struct Run<'a, S> {
    session: &'a mut Session<S>,
    part: Part<'a>,
    /// Stops the downloader.
    stop: CancellationToken,
    stopped: Option<Stopped>,
    live: bool,
    too_long: bool,
    traffic: Traffic,
    file: Option<String>,
    lines_ignored: u64,
}

/// Why a run stopped its own downloader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The video is larger than its bound.
    TooLarge,
    /// The folder holds bytes of several versions of the file.
    Mixed,
}

/// The end of a run.
pub(crate) enum RunEnd {
    /// With this file in the folder, and the information on the video.
    File(String, VideoInfo),
    /// The download must start over in an empty folder.
    Again,
}

impl<S: FnMut(Step)> Session<S> {
    pub(crate) fn new(steps: S, bounds: Bounds) -> Self {
        Self { steps, bounds, info: None, progress: Combined::default() }
    }

    /// Begins a run that resumes from `part`; the run cancels `stop` to end its downloader.
    pub(crate) fn run<'a>(&'a mut self, part: Part<'a>, stop: CancellationToken) -> Run<'a, S> {
        Run {
            session: self,
            part,
            stop,
            stopped: None,
            live: false,
            too_long: false,
            traffic: Traffic::default(),
            file: None,
            lines_ignored: 0,
        }
    }
}

impl<S: FnMut(Step)> Run<'_, S> {
    pub(crate) fn take(&mut self, line: &str) {
        let Session { steps, bounds, info, progress } = &mut *self.session;
        match protocol::parse(line) {
            Some(Line::Found { live, duration }) => {
                self.live = live;
                self.too_long = duration.is_some_and(|seconds| seconds > bounds.duration_max.as_secs());
            }
            Some(Line::Info(found)) => {
                // Reported once, even if a second run reports other information.
                if info.is_none() {
                    *info = Some(found.clone());
                    steps(Step::Info(found));
                }
            }
            Some(Line::Chosen(source)) => {
                let course = self.part.choose(source);
                self.go(course);
            }
            Some(Line::Files(files)) => {
                self.traffic.begin_download();
                progress.plan(files, info.as_ref().and_then(|info| info.duration));
            }
            Some(Line::Progress(now)) => {
                let course = self.part.advance(self.traffic.told(), now.downloaded_bytes);
                self.go(course);
                if matches!(course, Course::On | Course::Resumed(_)) {
                    self.progress(&now);
                }
            }
            Some(Line::Done(path)) => self.file = Some(path),
            None if line.is_empty() || self.traffic.take(line) => {}
            None => self.lines_ignored += 1,
        }
    }

    fn progress(&mut self, now: &FileProgress) {
        let Session { steps, bounds, progress, .. } = &mut *self.session;
        if let Some(progress) = progress.update(now) {
            steps(Step::Progress(progress));
        }
        if progress.least(now) > bounds.bytes_max {
            self.stop(Stopped::TooLarge);
        }
    }

    fn go(&mut self, course: Course) {
        match course {
            Course::Over => self.stop(Stopped::Mixed),
            Course::Resumed(bytes) => (self.session.steps)(Step::Resumed(bytes)),
            Course::On | Course::Unproven => {}
        }
    }

    fn stop(&mut self, why: Stopped) {
        self.stopped = self.stopped.or(Some(why));
        self.stop.cancel();
    }

    /// Why the run stopped its downloader, if it did.
    pub(crate) const fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// The file's name in the folder and the information on the video, or why there is no file.
    pub(crate) fn end(mut self, ended: &Ended) -> Result<RunEnd, Reason> {
        if self.lines_ignored > 0 {
            tracing::debug!(lines = self.lines_ignored, "ignored unknown lines from yt-dlp");
        }
        if let Some(signal) = ended.status.signal() {
            return Err(Reason::new(
                FailureKind::WorkerFailed,
                &format!("the downloader was killed by signal {signal}"),
            ));
        }
        let succeeded = ended.status.success();
        let file = self.file.take().filter(|_| succeeded);
        let name = file.as_deref().map(|path| Path::new(path).file_name());
        let path = name.flatten().map(|name| self.part.folder().join(name));
        let course = self.part.end(self.traffic.told(), path.as_deref());
        self.go(course);
        if self.stopped == Some(Stopped::Mixed) {
            return Ok(RunEnd::Again);
        }
        let Session { bounds, info, progress, .. } = &*self.session;
        if !succeeded {
            let reason = classify::classify(&ended.stderr, progress.begun());
            return Err(Reason { retry_after: self.traffic.retry_after(jiff::Timestamp::now()), ..reason });
        }
        match (name, info) {
            (Some(name), info) => match name.and_then(|name| name.to_str()) {
                Some(name) => Ok(RunEnd::File(name.to_owned(), info.clone().unwrap_or_default())),
                None => Err(Reason::new(FailureKind::DownloadFailed, "the downloader reported no file name")),
            },
            // Success without a file: the video was filtered out, or the address names an empty list.
            (None, _) if self.live => Err(Reason::new(FailureKind::LiveStream, "a live stream, live now or upcoming")),
            (None, _) if self.too_long => Err(bounds.too_long()),
            (None, None) => Err(Reason::new(FailureKind::Unsupported, "the downloader reported no file and no error")),
            (None, Some(_)) => {
                let reason = classify::classify(&ended.stderr, progress.begun());
                Err(Reason::new(reason.kind, &format!("the downloader succeeded without a file: {}", reason.detail)))
            }
        }
    }
}
