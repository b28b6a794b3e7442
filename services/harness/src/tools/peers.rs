//! What benches compare us to: the servers and libraries that other systems are made of.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Finder, apt, lock, npm, path, pip};

/// The oldest Node that our pinned packages run on.
const NODE_MIN: [u32; 1] = [20];
const MANIFEST: &str = include_str!("../../requirements/peers/package.json");
const LOCK: &str = include_str!("../../requirements/peers/package-lock.json");

/// Paths of what the peers run on.
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
    /// Finds them, and installs what is missing, as [`super::Tools::ensure`] does. redis-server may come from apt; its
    /// service is not started.
    pub fn ensure(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<Peers> {
        let mut finder = Finder::new(root, say)?;
        let python = finder.python()?;
        let python = finder.install("peers", include_str!("../../requirements/peers.txt"), &python)?.join("bin/python");
        let (node, node_modules) = finder.node()?;
        Ok(Peers { redis_server: finder.redis_server()?, python, node, node_modules })
    }
}

impl Finder<'_> {
    fn redis_server(&mut self) -> anyhow::Result<PathBuf> {
        let find = || path::on_path("redis-server").next();
        if let Some(found) = find() {
            return Ok(found);
        }
        let _lock = lock::hold(&self.folder)?;
        if find().is_none() {
            apt::install(&["redis-server"], "redis-server is needed", self.say)?;
        }
        find().context("redis-server is still not on the PATH after installing the package; add its folder to the PATH")
    }

    fn node(&mut self) -> anyhow::Result<(PathBuf, PathBuf)> {
        const NEEDED: &str = "Node 20 or newer with npm is needed on the PATH; install it";
        let node = path::on_path("node").find(|node| {
            let answer = self.probes.ask(node, &["--version"]);
            answer
                .and_then(|text| path::version(&text))
                .is_some_and(|version| version.as_slice() >= NODE_MIN.as_slice())
        });
        let node = node.context(NEEDED)?;
        let target = self.folder.join(pip::folder_name("peers-node", &format!("{MANIFEST}{LOCK}"), &node));
        if !target.is_dir() {
            let npm = path::on_path("npm").next().context(NEEDED)?;
            let _lock = lock::hold(&self.folder)?;
            if !target.is_dir() {
                (self.say)(&format!("installing Socket.IO into {}", target.display()));
                npm::install(&self.folder, &target, &npm, MANIFEST, LOCK)?;
            }
        }
        Ok((node, target.join("node_modules")))
    }
}
