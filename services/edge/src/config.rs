//! What can be configured about an edge.

use std::{net::SocketAddr, time::Duration};

use millrace_runtime::{
    blobs::{Location, STORAGE},
    config::{Reader, Setting, seconds},
};
use url::Url;

/// `--listen`
pub const LISTEN: Setting = Setting::new(
    "listen",
    "ADDRESS",
    "127.0.0.1:3001",
    "Where clients connect, by HTTP and WebSocket; 0.0.0.0:3001 for all of this machine's addresses.",
);
/// `--public-base-url`
pub const PUBLIC_BASE_URL: Setting = Setting::new(
    "public-base-url",
    "URL",
    "http://localhost:3001",
    "How clients reach the edges from outside; download links begin with it.",
);
/// `--allowed-origins`
pub const ALLOWED_ORIGINS: Setting = Setting::new(
    "allowed-origins",
    "ORIGIN[,ORIGIN…]",
    "http://localhost:3000,http://127.0.0.1:3000,http://localhost:3001,http://127.0.0.1:3001,http://localhost:4173,\
     http://127.0.0.1:4173,http://localhost:4200,http://127.0.0.1:4200,http://localhost:5173,http://127.0.0.1:5173,\
     http://localhost:8080,http://127.0.0.1:8080",
    "Pages of these origins may use the API, beside the public base URL's own.",
);
/// `--drain-seconds`
pub const DRAIN_SECONDS: Setting = Setting::new(
    "drain-seconds",
    "SECONDS",
    "25",
    "Over how long open WebSockets are closed when the process is to stop, so that clients do not reconnect at once.",
);

/// In the order of `--help`.
pub const SETTINGS: &[&Setting] = &[&LISTEN, &PUBLIC_BASE_URL, &ALLOWED_ORIGINS, &STORAGE, &DRAIN_SECONDS];

/// An edge's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Without a slash at its end.
    pub public_base_url: String,
    /// As browsers send them: scheme, host, port.
    pub allowed_origins: Vec<String>,
    /// Where files are.
    pub storage: Location,
    /// Over how long sockets are closed.
    pub drain: Duration,
}

/// Reads the configuration.
pub fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let listen = reader.value(&LISTEN);
    let public_base_url = reader.parsed(&PUBLIC_BASE_URL, base_url);
    let allowed_origins = reader.parsed(&ALLOWED_ORIGINS, origins);
    let storage = reader.value(&STORAGE);
    let drain = reader.parsed(&DRAIN_SECONDS, seconds);
    Some(Config {
        listen: listen?,
        public_base_url: public_base_url?,
        allowed_origins: allowed_origins?,
        storage: storage?,
        drain: drain?,
    })
}

fn base_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err("give an http:// or https:// address without query".into());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn origins(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(origin).collect()
}

fn origin(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("{text}: {error}"))?;
    let origin = url.origin();
    if !origin.is_tuple() || url.path() != "/" {
        return Err(format!("{text}: an origin is scheme://host or scheme://host:port"));
    }
    Ok(origin.ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_used_and_bad_values_are_told_together() {
        let none = |_: &Setting| None;
        let mut reader = Reader::new(&none);
        let config = read(&mut reader);
        let config = reader.finish(config).unwrap();
        assert!(config.allowed_origins.contains(&"http://localhost:5173".to_owned()));

        let bad = |setting: &Setting| match setting.flag {
            "listen" => Some("3001".to_owned()),
            "public-base-url" => Some("localhost".to_owned()),
            "allowed-origins" => Some("https://a.example/path".to_owned()),
            "storage" => Some("ftp://x".to_owned()),
            _ => Some("soon".to_owned()),
        };
        let mut reader = Reader::new(&bad);
        let config = read(&mut reader);
        assert_eq!(reader.finish(config).unwrap_err().len(), 5);
    }
}
