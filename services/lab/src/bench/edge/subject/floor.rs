//! The floor: see [`super::super::floor`].

use std::net::SocketAddr;

use anyhow::bail;
use futures::future::BoxFuture;
use millrace_harness::{
    ports::free_port,
    processes::{Service, ServiceOptions},
};

use super::{
    super::{
        floor::{Publisher, message},
        frame::{self, opcode},
        job::{self, Tracks},
        load::control::Protocol,
        loads::Access,
        mark::Mark,
    },
    Ground, Subject, connect,
};

/// The subject.
pub struct Floor {
    running: Option<(Service, Publisher)>,
    port: u16,
    merge: bool,
    tracks: Tracks,
    epoch_us: u64,
}

impl Floor {
    /// Starts it, and sends it a state of each job.
    pub async fn start(ground: &Ground, merge: bool) -> anyhow::Result<Self> {
        let tracks = Tracks::new(ground.jobs);
        let mut subject = Self { running: None, port: free_port(), merge, tracks, epoch_us: ground.epoch_us };
        subject.start_again().await?;
        Ok(subject)
    }

    async fn start_again(&mut self) -> anyhow::Result<()> {
        self.running = None;
        self.tracks.forget_offered();
        let publisher = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listen = format!("--listen=127.0.0.1:{}", self.port);
        let mut args = vec!["bench".to_owned(), "edge-floor".to_owned(), listen, format!("--publisher={publisher}")];
        args.extend(self.merge.then(|| "--merge".to_owned()));
        let options = ServiceOptions { args, ..ServiceOptions::default() };
        let mut service = Service::spawn_program("floor", &std::env::current_exe()?, options)?;
        let publisher = Publisher::new(connect(&mut service, "floor", publisher).await?)?;
        for number in 0..self.tracks.len() {
            let id = job::id(number);
            let frame = frame::of_server(opcode::TEXT, job::status_text(&id, 3, None).as_bytes());
            publisher.send(&message(id.as_str(), &frame, false)).await?;
        }
        self.running = Some((service, publisher));
        Ok(())
    }
}

impl Subject for Floor {
    fn access(&self) -> Access {
        let targets = vec![([127, 0, 0, 1], self.port).into()];
        Access { protocol: Protocol::Status, targets, path: "/ws/download/{id}".into() }
    }

    fn renew(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.start_again())
    }

    fn publish(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        self.offer(job)
    }

    fn offer(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let Some((_, publisher)) = &self.running else { bail!("the floor is not running") };
            let mut track = self.tracks.get(job).lock().await;
            let mark = Mark::now(self.epoch_us, track.seen.number + 1);
            let (seq, id) = (track.invented(), job::id(job));
            let frame = frame::of_server(opcode::TEXT, job::status_text(&id, seq, Some(mark)).as_bytes());
            publisher.send(&message(id.as_str(), &frame, true)).await?;
            track.advance(seq, false);
            Ok(())
        })
    }

    fn serving(&self) -> Vec<u32> {
        self.running.iter().map(|(service, _)| service.pid()).collect()
    }

    fn behind(&self) -> Vec<u32> {
        Vec::new()
    }
}
