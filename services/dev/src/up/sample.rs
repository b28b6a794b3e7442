//! The sample site: a video to download with no internet at all.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::mpsc::{Sender, channel},
};

use anyhow::{Context, bail};
use millrace_harness::media::{MediaFiles, MediaServer, MediaSpec};

/// So that the sample, of 20 MB, takes about ten seconds: time to watch the bar, or to cancel.
const RATE_BYTES_PER_S: u64 = 2_000_000;

/// The site. It answers when its media are made.
pub struct Sample {
    // Before the server, which waits for the maker when dropped: without a word it is told to give up.
    go: Sender<()>,
    server: MediaServer,
}

impl Sample {
    /// Listens. The media, kept in `folder`, are made by ffmpeg only after [`Sample::make`], if they are not there.
    pub fn start(port: u16, folder: PathBuf, ffmpeg: PathBuf) -> anyhow::Result<Self> {
        let (go, wait) = channel();
        let make = move || {
            if wait.recv().is_err() {
                bail!("stopped");
            }
            MediaFiles::make(&folder, &ffmpeg, &MediaSpec::default())
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = MediaServer::start_later(make, address).context("--sample-port")?;
        Ok(Self { go, server })
    }

    /// Makes the media in the background.
    pub fn make(&self) {
        // It fails when they are made already.
        let _ = self.go.send(());
    }

    /// The page to submit.
    pub fn page(&self) -> String {
        self.server.url(&format!("/page.html?rate={RATE_BYTES_PER_S}"))
    }

    /// The list of everything there is.
    pub fn index(&self) -> String {
        self.server.url("/")
    }
}
