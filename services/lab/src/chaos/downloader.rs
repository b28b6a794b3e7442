//! The fast downloader: it takes yt-dlp's command line and prints what the worker's templates request from yt-dlp,
//! without the second or two of processor time that yt-dlp costs. It passes every other address on to yt-dlp.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;

/// The first part of a path that is downloaded here.
pub const FAST: &str = "fast";
/// The first part of a path that yt-dlp downloads.
pub const REAL: &str = "real";

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Downloads one address of the chaos source as yt-dlp would
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The real yt-dlp
    #[arg(long)]
    yt_dlp: PathBuf,
    /// The arguments of yt-dlp
    #[arg(last = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Writes the script that workers run as their downloader; returns the script's path.
pub fn script(folder: &Path, yt_dlp: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    // A build during the run replaces the original, not this copy.
    let program = folder.join("lab");
    let this = std::env::current_exe().context("cannot determine the path of this program")?;
    std::fs::hard_link(&this, &program).or_else(|_| std::fs::copy(&this, &program).map(drop))?;
    let path = folder.join("downloader");
    let text =
        format!("#!/bin/sh\nexec '{}' chaos-downloader --yt-dlp '{}' -- \"$@\"\n", program.display(), yt_dlp.display());
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let url = args.args.last().cloned().unwrap_or_default();
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    if path.split('/').next() != Some(FAST) {
        let error = Command::new(&args.yt_dlp).args(&args.args).exec();
        return Err(anyhow::anyhow!(error).context("yt-dlp did not start"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(match runtime.block_on(download(&url)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As yt-dlp does: one line, one code.
            let _ = writeln!(std::io::stderr(), "ERROR: [generic] {error:#}");
            ExitCode::FAILURE
        }
    })
}

async fn download(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().read_timeout(Duration::from_secs(20)).build()?;
    let mut response = client.get(url).send().await.context("Unable to download webpage")?;
    if !response.status().is_success() {
        bail!("Unable to download webpage: HTTP Error {}", response.status());
    }
    let total = response.content_length().unwrap_or(0);
    say("I", &json!({"id": "video", "title": "video", "extractor_key": "Generic"}))?;
    let part = Path::new("media.mp4.part");
    let write = |error: std::io::Error| match error.raw_os_error() {
        Some(code) => anyhow::anyhow!("unable to write data: [Errno {code}] {error}"),
        None => anyhow::anyhow!("unable to write data: {error}"),
    };
    let mut file = std::fs::File::create(part).map_err(write)?;
    let (begun, mut told, mut bytes) = (Instant::now(), Instant::now(), 0);
    while let Some(chunk) = response.chunk().await.context("the response ended early, more expected")? {
        file.write_all(&chunk).map_err(write)?;
        bytes += chunk.len() as u64;
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let speed = bytes as f64 / begun.elapsed().as_secs_f64();
            say(
                "P",
                &json!({"status": "downloading", "downloaded_bytes": bytes, "total_bytes": total, "speed": speed}),
            )?;
        }
    }
    if bytes != total {
        bail!("{bytes} bytes read, {} more expected", total - bytes);
    }
    std::fs::rename(part, "media.mp4").map_err(write)?;
    say("P", &json!({"status": "finished", "downloaded_bytes": bytes, "total_bytes": total}))?;
    let path = std::env::current_dir()?.join("media.mp4");
    say("D", &json!({"filepath": path}))
}

/// Prints a line for the worker; fails when the worker has closed the pipe.
fn say(tag: &str, value: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{tag} {value}")?;
    Ok(out.flush()?)
}
