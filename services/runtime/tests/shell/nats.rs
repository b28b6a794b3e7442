//! What the connection reports about itself.

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
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
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
    // By now the server has responded to many requests, and events of the connection have had time to arrive.
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
            let is_told = matches!(disturbance, Ok(Disturbance::SlowConsumer) | Err(RecvError::Lagged(_)));
            assert!(is_told, "{disturbance:?}");
        }
        () = flooding => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_used_are_an_error_and_nothing_to_wait_for() {
    let folder = std::env::temp_dir().join(format!("millrace-credentials-{}", std::process::id()));
    let mut config = config("nats://127.0.0.1:1");
    for (text, why) in [(None, "cannot read"), (Some("no credentials"), "not a NATS credentials file")] {
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

/// The part of a server of this version that a client needs to connect.
async fn server_of_version(listener: TcpListener, version: &str) -> std::io::Result<()> {
    loop {
        let (reading, mut writing) = listener.accept().await?.0.into_split();
        let info = format!(r#"{{"server_id":"x","version":"{version}","proto":1,"max_payload":1048576}}"#);
        writing.write_all(format!("INFO {info}\r\n").as_bytes()).await?;
        let mut lines = BufReader::new(reading).lines();
        while let Some(line) = lines.next_line().await? {
            if line == "PING" {
                writing.write_all(b"PONG\r\n").await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lacks_what_is_used_is_refused() {
    for (version, is_taken) in [("2.12.0", true), ("2.15.1-beta", true), ("2.11.9", false), ("1.99.0", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let connect = async { Nats::connect(&config(&url), "test", Health::default().check("nats")).await.map(|_| ()) };
        let connected = tokio::select! {
            connected = timeout(LIMIT, connect) => connected.expect("an answer"),
            ended = server_of_version(listener, version) => panic!("the server has ended: {ended:?}"),
        };
        assert_eq!(connected.is_ok(), is_taken, "{version}: {connected:?}");
        let told = connected.err().is_none_or(|error| error.to_string().contains("2.12 or newer"));
        assert!(told, "{version}");
    }
}
