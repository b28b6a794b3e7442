//! What the connection tells of itself.

use std::time::Duration;

use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    ports::free_port,
};
use millrace_runtime::{
    admin::Health,
    nats::{Disturbance, Nats},
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};

use crate::support::{LIMIT, World, config, until};

async fn next(disturbances: &mut Receiver<Disturbance>) -> Result<Disturbance, RecvError> {
    timeout(LIMIT, disturbances.recv()).await.expect("a disturbance")
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_fails_while_disconnected_and_everybody_is_told_of_the_reconnect() {
    let mut world = World::start().await;
    assert_eq!(world.health.failures(), [] as [String; 0]);
    let mut disturbances = [world.nats.disturbances(), world.nats.clone().disturbances()];
    for _ in 0..2 {
        world.server.kill();
        until("it is noticed", async || world.health.failures() == ["nats: disconnected"]).await;
        world.server.restart().await.unwrap();
        for receiver in &mut disturbances {
            assert_eq!(next(receiver).await, Ok(Disturbance::Reconnected));
        }
        assert_eq!(world.health.failures(), [] as [String; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_connection_disturbs_nobody() {
    let world = World::start().await;
    let mut disturbances = world.nats.disturbances();
    // By now the server has answered many requests, and events of the connection have had their time.
    world.messages().await;
    assert!(disturbances.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_waited_for() {
    let port = free_port();
    let health = Health::default();
    let check = health.check("nats");
    let connecting = tokio::spawn(async move {
        Nats::connect(&config(&format!("nats://127.0.0.1:{port}")), "test", check).await.map(|_| ())
    });
    until("the reason is told", async || {
        health.failures().iter().any(|failure| failure.starts_with("nats: cannot connect"))
    })
    .await;
    let _server = NatsServer::start(NatsOptions { port: Some(port), ..Default::default() }).await.unwrap();
    timeout(LIMIT, connecting).await.expect("connected").unwrap().unwrap();
    assert_eq!(health.failures(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_keep_up_is_told_of() {
    let world = World::start().await;
    let mut disturbances = world.nats.disturbances();
    let _nobody_reads = world.nats.client.subscribe("flood").await.unwrap();
    let flooding = async {
        loop {
            for _ in 0..1000 {
                world.nats.client.publish("flood", "".into()).await.unwrap();
            }
            world.nats.client.flush().await.unwrap();
        }
    };
    tokio::select! {
        disturbance = next(&mut disturbances) => {
            // Or so many that the first ones are gone.
            assert!(matches!(disturbance, Ok(Disturbance::SlowConsumer) | Err(RecvError::Lagged(_))), "{disturbance:?}");
        }
        () = flooding => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_used_are_an_error_and_nothing_to_wait_for() {
    let folder = std::env::temp_dir().join(format!("millrace-credentials-{}", std::process::id()));
    let mut config = config("nats://127.0.0.1:1");
    for (text, why) in [(None, "cannot read"), (Some("no credentials"), "no NATS credentials file")] {
        config.credentials = Some(folder.clone());
        if let Some(text) = text {
            std::fs::write(&folder, text).unwrap();
        }
        let connecting = Nats::connect(&config, "test", Health::default().check("nats"));
        let error = timeout(Duration::from_secs(20), connecting).await.expect("no waiting").err().unwrap();
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
    std::fs::remove_file(&folder).unwrap();
}
