//! The settings of an edge.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

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
    "The time over which a stopping edge closes its open WebSockets, so that clients do not all reconnect at once.",
);

/// `--connections`
pub const CONNECTIONS: Setting = Setting::new(
    "connections",
    "NUMBER",
    "100000",
    "Most connections open at once; further ones are answered 503. Each needs a file descriptor (ulimit -n).",
);
/// `--connections-per-address`
pub const CONNECTIONS_PER_ADDRESS: Setting = Setting::new(
    "connections-per-address",
    "NUMBER",
    "0",
    "Most connections open at once from one address; 0 for no bound, as behind a proxy, where all share one address.",
);
/// `--socket-loops`
pub const SOCKET_LOOPS: Setting = Setting::new(
    "socket-loops",
    "auto|NUMBER",
    "auto",
    "Threads that serve the WebSockets; auto is one for each processor.",
);

/// In the order of `--help`.
pub const SETTINGS: &[&Setting] = &[
    &LISTEN,
    &PUBLIC_BASE_URL,
    &ALLOWED_ORIGINS,
    &STORAGE,
    &DRAIN_SECONDS,
    &CONNECTIONS,
    &CONNECTIONS_PER_ADDRESS,
    &SOCKET_LOOPS,
];

/// An edge's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// How clients reach the edges; without a trailing slash.
    pub public_base_url: String,
    /// Allowed origins as browsers send them: scheme, host, port.
    pub allowed_origins: Vec<String>,
    /// Where downloaded files are stored.
    pub storage: Location,
    /// The time over which a stopping edge closes its sockets.
    pub drain: Duration,
    /// Bound of open connections.
    pub connections_max: usize,
    /// Bound of open connections from one address; 0 for no bound.
    pub connections_per_address_max: usize,
    /// Threads that serve WebSockets.
    pub socket_loops: usize,
}

/// Reads the configuration.
pub fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let listen = reader.value(&LISTEN);
    let public_base_url = reader.parsed(&PUBLIC_BASE_URL, base_url);
    let allowed_origins = reader.parsed(&ALLOWED_ORIGINS, origins);
    let storage = reader.value(&STORAGE);
    let drain = reader.parsed(&DRAIN_SECONDS, seconds);
    let connections_max = reader.value::<NonZeroUsize>(&CONNECTIONS);
    let connections_per_address_max = reader.value(&CONNECTIONS_PER_ADDRESS);
    let socket_loops = reader.parsed(&SOCKET_LOOPS, socket_loops);
    Some(Config {
        listen: listen?,
        public_base_url: public_base_url?,
        allowed_origins: allowed_origins?,
        storage: storage?,
        drain: drain?,
        connections_max: connections_max?.get(),
        connections_per_address_max: connections_per_address_max?,
        socket_loops: socket_loops?,
    })
}

fn socket_loops(text: &str) -> Result<usize, String> {
    match text {
        "auto" => Ok(std::thread::available_parallelism().map_or(1, NonZeroUsize::get)),
        _ => match text.parse() {
            Ok(loops @ 1..=256) => Ok(loops),
            _ => Err("give auto or a number from 1 to 256".into()),
        },
    }
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
        assert_eq!(reader.finish(config).unwrap_err().len(), 8);
    }
}
