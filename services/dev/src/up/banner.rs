//! The banner that `up` prints when everything is ready: the addresses, and commands to try.

use std::time::Duration;

use millrace_harness::programs::UP_READY;

use super::{layout::Layout, sample::Sample};
use crate::terminal::Output;

/// The banner.
pub fn text(layout: &Layout, sample: &Sample, output: Output, took: Duration) -> String {
    let base = layout.base_url();
    let page = sample.page();
    let verify = match layout.args.nats_port {
        4222 => "cargo dev verify".to_owned(),
        _ => format!("cargo dev verify --nats-url {}", layout.nats_url()),
    };
    let submit = format!("curl -s {base}/api/download -H 'content-type: application/json' -d '{{\"url\":\"{page}\"}}'");
    let watch = format!("npx wscat -c {}/ws/download/JOB_ID", base.replacen("http", "ws", 1));
    let rows = [
        ("The page", base.clone()),
        ("A video", format!("{page}   (more on {})", sample.index())),
        ("Submit it", submit),
        ("Watch it", watch),
        ("Check it", verify),
        ("The data", layout.data.root().display().to_string()),
    ];
    let mut text = format!("\n  {}\n\n", output.bold(&format!("{UP_READY} ({:.1} s).", took.as_secs_f64())));
    for (name, value) in rows {
        text.push_str(&format!("  {name:<10} {value}\n"));
    }
    text + "\n  Ctrl-C stops everything.\n"
}
