//! The sample site: a video to download without internet access.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::mpsc::{Sender, channel},
};

use anyhow::{Context, bail};
use millrace_harness::media::{MediaFiles, MediaServer, MediaSpec};

/// At this rate the sample of 20 MB takes about ten seconds: time to watch the progress, or to cancel.
const RATE_BYTES_PER_S: u64 = 2_000_000;

/// The site. It answers requests once its media are made.
pub struct Sample {
    // Declared before the server, whose drop waits for the maker: dropping the sender makes the maker give up.
    go: Sender<()>,
    server: MediaServer,
}

impl Sample {
    /// Listens. ffmpeg makes missing media, kept in `folder`, only after [`Sample::make`].
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
        // The send fails when the media are already made.
        let _ = self.go.send(());
    }

    /// The page to submit.
    pub fn page(&self) -> String {
        self.server.url(&format!("/page.html?rate={RATE_BYTES_PER_S}"))
    }

    /// The site's index page.
    pub fn index(&self) -> String {
        self.server.url("/")
    }
}
