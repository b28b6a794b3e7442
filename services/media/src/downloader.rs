//! yt-dlp: one command line, one process, and its output read line by line.

mod command;
mod session;
mod protocol;
mod progress;
mod traffic;
mod classify;

use millrace_domain::{event::VideoInfo, failure::FailureKind, limits::MIXED_RUNS_MAX};
use tokio_util::sync::CancellationToken;

use self::session::{RunEnd, Session, Stopped};
use crate::{
    error::{MediaError, Reason},
    part::Part,
    process::{self, RunError},
    request::{Request, Step},
    tools::Tools,
};

/// Runs the downloader until its file is of one version. Returns the file's name in the folder and the source's
/// information on the video.
pub(crate) async fn run(
    tools: &Tools,
    request: Request<'_>,
    steps: impl FnMut(Step),
    cancel: &CancellationToken,
) -> Result<(String, VideoInfo), MediaError> {
    let mut session = Session::new(steps, request.bounds);
    let mut runs = 1;
    loop {
        match run_once(tools, request, &mut session, cancel).await? {
            RunEnd::File(name, info) => return Ok((name, info)),
            RunEnd::Again if runs < MIXED_RUNS_MAX => {
                runs += 1;
                tracing::info!("file changed at the source; restarting the download");
            }
            RunEnd::Again => {
                let detail = "the file at the source changed during every run";
                return Err(Reason::new(FailureKind::SourceBroken, detail).into());
            }
        }
    }
}

async fn run_once(
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
            Some(Stopped::TooLarge) => Err(request.bounds.too_large().into()),
            Some(Stopped::Mixed) => Ok(RunEnd::Again),
            None => Err(MediaError::Canceled),
        },
        ended => Ok(run.end(&ended?)?),
    }
}
