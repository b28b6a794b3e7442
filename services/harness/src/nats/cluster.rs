//! Several nats-servers as one cluster, configured by `nats/cluster.conf`, and the leaders of their streams.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use serde_json::Value;

use super::{NatsOptions, NatsServer};
use crate::{checkout, ports::free_port};

const CONFIG: &str = "nats/cluster.conf";
/// How long a cluster may take to elect its first leader, and a stream to get one.
const LEADER_MAX: Duration = Duration::from_secs(30);
const REQUEST_MAX: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(50);

/// A cluster on 127.0.0.1. Dropping it kills all servers and removes their temporary stores.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts `size` servers, each with its own store, and waits until streams can be created.
    pub async fn start(program: Option<PathBuf>, size: usize) -> anyhow::Result<Self> {
        Self::start_with_stores(program, vec![None; size]).await
    }

    /// Starts servers with these data folders; `None` stands for a temporary one.
    pub async fn start_with_stores(program: Option<PathBuf>, stores: Vec<Option<PathBuf>>) -> anyhow::Result<Self> {
        let routes: Vec<_> = stores.iter().map(|_| format!("nats://127.0.0.1:{}", free_port())).collect();
        let (all, size) = (routes.join(","), stores.len());
        let nodes = stores.into_iter().zip(&routes).map(|(store, own)| {
            NatsServer::start(NatsOptions {
                program: program.clone(),
                config: Some(checkout().join(CONFIG)),
                store,
                // With these flags, a single server would wait for others for ever.
                args: if size > 1 {
                    vec!["--cluster".into(), own.clone(), "--routes".into(), all.clone()]
                } else {
                    vec![]
                },
                ..NatsOptions::default()
            })
        });
        let cluster = Self { nodes: try_join_all(nodes).await? };
        cluster.wait_for_jetstream().await?;
        Ok(cluster)
    }

    /// The addresses of all servers for clients, separated by commas.
    pub fn url(&self) -> String {
        self.nodes.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// The servers, always in the same order.
    pub fn nodes(&self) -> &[NatsServer] {
        &self.nodes
    }

    /// The server at this index.
    pub fn node(&mut self, place: usize) -> &mut NatsServer {
        &mut self.nodes[place]
    }

    /// A connection that moves to any running server.
    pub async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        let urls =
            self.nodes.iter().map(|node| node.url().parse()).collect::<Result<Vec<async_nats::ServerAddr>, _>>()?;
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let options = options.reconnect_delay_callback(|_| Duration::from_millis(100));
        Ok(options.connect(&urls[..]).await?)
    }

    /// The index of the server that leads a stream, or `None` while there is no leader.
    pub async fn leader(&self, client: &async_nats::Client, stream: &str) -> Option<usize> {
        let info = request(client, format!("$JS.API.STREAM.INFO.{stream}")).await?;
        self.place(&info)
    }

    /// The index of the leader in a stream's info.
    fn place(&self, info: &Value) -> Option<usize> {
        if self.nodes.len() == 1 {
            return info.get("config").map(|_| 0);
        }
        let leader = info.pointer("/cluster/leader")?.as_str()?;
        self.nodes.iter().position(|node| node.name() == leader)
    }

    /// Waits until a stream has a leader and no stale replica; returns the leader's index.
    pub async fn wait_for_stream(&self, client: &async_nats::Client, stream: &str) -> anyhow::Result<usize> {
        let deadline = Instant::now() + LEADER_MAX;
        loop {
            let info = request(client, format!("$JS.API.STREAM.INFO.{stream}")).await.unwrap_or_default();
            let place = self.place(&info);
            let replicas = info.pointer("/cluster/replicas").and_then(Value::as_array);
            let behind = replicas.is_some_and(|replicas| replicas.iter().any(|replica| replica["current"] != true));
            match place {
                Some(place) if !behind => return Ok(place),
                _ if Instant::now() > deadline => {
                    bail!("the stream {stream} lacks a leader or a replica after {LEADER_MAX:?}: {}", info["cluster"])
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Waits for JetStream's leader; servers greet clients before they have elected one.
    async fn wait_for_jetstream(&self) -> anyhow::Result<()> {
        let client = self.connect().await?;
        let deadline = Instant::now() + LEADER_MAX;
        loop {
            match request(&client, "$JS.API.INFO".into()).await {
                Some(info) if info.get("error").is_none() => return Ok(()),
                _ if Instant::now() > deadline => {
                    let logs = self.nodes.iter().map(NatsServer::log_tail).collect::<Vec<_>>().join("\n");
                    bail!("the cluster has no leader after {LEADER_MAX:?}; its servers' last lines:\n{logs}")
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
}

async fn request(client: &async_nats::Client, subject: String) -> Option<Value> {
    let request = async_nats::Request::new().timeout(Some(REQUEST_MAX));
    let answer = client.send_request(subject, request).await.ok()?;
    serde_json::from_slice(&answer.payload).context("no JSON").ok()
}
