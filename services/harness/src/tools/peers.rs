//! The benches' peers: the servers and libraries of other systems.

use std::path::{Path, PathBuf};

use super::Finder;

const MANIFEST: &str = include_str!("../../requirements/peers/package.json");
const LOCK: &str = include_str!("../../requirements/peers/package-lock.json");

/// Paths of the programs and libraries that the peers run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// redis-server.
    pub redis_server: PathBuf,
    /// A Python that can import FastAPI, uvicorn and redis.
    pub python: PathBuf,
    /// Node, 20 or newer.
    pub node: PathBuf,
    /// A folder with Socket.IO and a Redis client, for `NODE_PATH`.
    pub node_modules: PathBuf,
}

impl Peers {
    /// Finds them, and installs missing ones, as [`super::Tools::ensure`] does. apt may install redis-server; its
    /// service is not started.
    pub fn ensure(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<Peers> {
        let mut finder = Finder::new(root, say)?;
        let python = finder.python()?;
        let python = finder.install("peers", include_str!("../../requirements/peers.txt"), &python)?.join("bin/python");
        let (node, node_modules) = finder.node_packages("peers-node", "Socket.IO", MANIFEST, LOCK)?;
        Ok(Peers { redis_server: finder.on_path_or_apt("redis-server")?, python, node, node_modules })
    }
}
