//! Logs by `tracing`, to stdout: pretty for people, JSON for machines.

use std::{io::IsTerminal, str::FromStr};

use tracing_subscriber::EnvFilter;

use crate::config::{Reader, Setting};

/// `--log-format`
pub const LOG_FORMAT: Setting =
    Setting::new("log-format", "auto|pretty|json", "auto", "Log format; auto is pretty on a terminal, else json.");
/// `--log`
pub const LOG: Setting = Setting::new(
    "log",
    "FILTER",
    "info,async_nats=warn",
    "Log filter in the syntax of tracing: info, debug, millrace_edge=debug,info.",
);

/// The format and filter of logs.
#[derive(Clone, Debug)]
pub struct Config {
    format: Format,
    filter: String,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Auto,
    Pretty,
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("choose auto, pretty or json"),
        }
    }
}

/// Reads the configuration.
pub fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let format = reader.value(&LOG_FORMAT);
    let filter = reader.parsed(&LOG, |text| EnvFilter::try_new(text).map(|_| text.to_owned()));
    Some(Config { format: format?, filter: filter? })
}

/// Installs the subscriber of the process.
pub fn install(config: &Config) {
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&config.filter)).with_target(false);
    let json = match config.format {
        Format::Auto => !std::io::stdout().is_terminal(),
        Format::Pretty => false,
        Format::Json => true,
    };
    if json {
        builder.json().flatten_event(true).with_target(true).init();
    } else {
        builder.with_ansi(std::io::stdout().is_terminal()).init();
    }
}
