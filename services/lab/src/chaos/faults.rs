//! Carries out the schedule, and records each fault.

use std::{sync::Arc, time::Duration};

use millrace_domain::subjects::STREAM;
use millrace_harness::{
    proxy::{MessageFault, Mode},
    s3,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    recorder::{Injected, now},
    schedule::{Fault, Node, Planned, Target},
    world::World,
};

/// Every republished message, and nothing else.
const LIVE: &str = "live.";
/// The delay of a late message.
const LATENESS: Duration = Duration::from_millis(400);
const SLOWNESS: Duration = Duration::from_millis(100);

/// Injects everything at its time; returns once each fault is over.
pub async fn run(world: &Arc<World>, plan: Vec<Planned>) {
    let begun = Instant::now();
    let mut under_way = JoinSet::new();
    for Planned { at, fault } in plan {
        sleep_until(begun + at).await;
        if matches!(fault, Fault::DiskFull(_)) && world.disk.is_none() {
            continue;
        }
        let world = Arc::clone(world);
        under_way.spawn(async move {
            let from = now();
            inject(&world, fault).await;
            world.recorder.kept().injected.push(Injected { fault, from, to: now() });
        });
    }
    while under_way.join_next().await.is_some() {}
    // Overlapping faults of one link may have restored each other's settings.
    for process in &world.processes {
        process.thaw();
        for link in process.plan.links.iter().chain(&process.plan.store_link) {
            link.set(Mode::Pass);
            link.set_messages(None);
        }
    }
    world.s3.set_fault(None);
}

async fn inject(world: &World, fault: Fault) {
    match fault {
        Fault::Kill(target) => world.process(target).kill(),
        Fault::Freeze(target, span) => {
            world.process(target).freeze();
            sleep(span).await;
            world.process(target).thaw();
        }
        Fault::Cut(target) => cut(world, target),
        Fault::Refuse(target, span) => {
            set(world, target, Mode::Refuse);
            cut(world, target);
            sleep(span).await;
            set(world, target, Mode::Pass);
        }
        Fault::Stall(target, span) => {
            set(world, target, Mode::Stall);
            sleep(span).await;
            set(world, target, Mode::Pass);
        }
        Fault::Slow(target, span) => {
            set(world, target, Mode::Delay(SLOWNESS));
            sleep(span).await;
            set(world, target, Mode::Pass);
        }
        Fault::LoseLive(edge, lost, span) => messages(world, edge, lost, 0.0, span).await,
        Fault::LateLive(edge, late, span) => messages(world, edge, 0.0, late, span).await,
        Fault::KillNats(node, span) => kill_nats(world, node, span).await,
        Fault::FreezeNats(node, span) => {
            let cluster = world.cluster.lock().await;
            let place = place(world, &cluster, node).await;
            cluster.nodes()[place].pause();
            sleep(span).await;
            cluster.nodes()[place].resume();
            whole(world, &cluster).await;
        }
        Fault::LogAway(span) => {
            let cluster = world.cluster.lock().await;
            cluster.nodes().iter().for_each(millrace_harness::nats::NatsServer::pause);
            sleep(span).await;
            cluster.nodes().iter().for_each(millrace_harness::nats::NatsServer::resume);
            whole(world, &cluster).await;
        }
        Fault::StoreUnavailable(span) => store(world, s3::Fault::Unavailable, span).await,
        Fault::StoreHangs(span) => store(world, s3::Fault::Hangs, span).await,
        Fault::StoreCut(worker) => {
            if let Some(link) = &world.process(Target::Worker(worker)).plan.store_link {
                link.cut();
            }
        }
        Fault::DiskFull(span) => fill_disk(world, span).await,
    }
}

fn set(world: &World, target: Target, mode: Mode) {
    world.process(target).plan.links.iter().for_each(|link| link.set(mode));
}

fn cut(world: &World, target: Target) {
    world.process(target).plan.links.iter().for_each(millrace_harness::proxy::Proxy::cut);
}

async fn messages(world: &World, edge: usize, lost: f64, late: f64, span: Duration) {
    let links = &world.process(Target::Edge(edge)).plan.links;
    let fault = MessageFault { subject: LIVE.into(), lost, late, lateness: LATENESS };
    links.iter().for_each(|link| link.set_messages(Some(fault.clone())));
    sleep(span).await;
    links.iter().for_each(|link| link.set_messages(None));
}

/// The lock is held until the cluster is whole: one of three at a time.
async fn kill_nats(world: &World, node: Node, span: Duration) {
    let mut cluster = world.cluster.lock().await;
    let place = place(world, &cluster, node).await;
    cluster.node(place).kill();
    sleep(span).await;
    while let Err(error) = cluster.node(place).restart().await {
        eprintln!("cannot restart a nats-server; trying again: {error:#}");
    }
    whole(world, &cluster).await;
}

async fn whole(world: &World, cluster: &millrace_harness::nats::NatsCluster) {
    if let Err(error) = cluster.wait_for_stream(&world.client, STREAM).await {
        eprintln!("{error:#}");
    }
}

async fn place(world: &World, cluster: &millrace_harness::nats::NatsCluster, node: Node) -> usize {
    match node {
        Node::At(place) => place % cluster.nodes().len(),
        Node::Leader => cluster.leader(&world.client, STREAM).await.unwrap_or(0),
    }
}

async fn store(world: &World, fault: s3::Fault, span: Duration) {
    world.s3.set_fault(Some(fault));
    sleep(span).await;
    world.s3.set_fault(None);
}

async fn fill_disk(world: &World, span: Duration) {
    let Some(disk) = &world.disk else { return };
    let until = Instant::now() + span;
    // Repeatedly, since downloads that end free some space.
    while Instant::now() < until {
        let _ = tokio::task::block_in_place(|| disk.fill(0));
        sleep(Duration::from_millis(100)).await;
    }
    let _ = disk.empty();
}
