//! A cluster of three loses its leader and continues; a proxy in front of a nats-server injects the requested faults.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures::StreamExt;
use millrace_harness::{
    nats::{NatsCluster, NatsOptions, NatsServer},
    proxy::{MessageFault, Mode, Proxy},
};

#[tokio::test]
async fn a_cluster_that_loses_its_leader_has_another_one_and_every_message() {
    let mut cluster = NatsCluster::start(None, 3).await.unwrap();
    let client = cluster.connect().await.unwrap();
    let config =
        stream::Config { name: "TEST".into(), subjects: vec!["test.>".into()], num_replicas: 3, ..Default::default() };
    let context = jetstream::new(client.clone());
    context.create_stream(config).await.unwrap();
    context.publish("test.one", "payload".into()).await.unwrap().await.unwrap();
    let first = cluster.wait_for_stream(&client, "TEST").await.unwrap();
    cluster.node(first).kill();
    let second = loop {
        match cluster.leader(&client, "TEST").await {
            Some(place) if place != first => break place,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_ne!(first, second);
    cluster.node(first).restart().await.unwrap();
    cluster.wait_for_stream(&client, "TEST").await.unwrap();
    let stream = context.get_stream("TEST").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 1);
}

#[tokio::test]
async fn a_cluster_of_one_leads_itself() {
    let cluster = NatsCluster::start(None, 1).await.unwrap();
    let client = cluster.connect().await.unwrap();
    let config = stream::Config { name: "TEST".into(), ..Default::default() };
    jetstream::new(client.clone()).create_stream(config).await.unwrap();
    assert_eq!(cluster.wait_for_stream(&client, "TEST").await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_of_a_cluster_names_no_address_that_leads_around_a_proxy() {
    let cluster = NatsCluster::start(None, 3).await.unwrap();
    let client = cluster.connect().await.unwrap();
    assert_eq!(client.server_info().connect_urls, Vec::<String>::new());
}

async fn through(server: &NatsServer) -> (Proxy, async_nats::Client) {
    let proxy = Proxy::start(([127, 0, 0, 1], server.client_port()).into(), 7).await.unwrap();
    let options = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(20));
    let client = options.connect(format!("nats://{}", proxy.address())).await.unwrap();
    (proxy, client)
}

#[tokio::test]
async fn lost_messages_are_those_of_the_subject_and_late_ones_are_overtaken() {
    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    let (proxy, client) = through(&server).await;
    let mut all = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let fault = |lost, late| MessageFault { subject: "live.".into(), lost, late, lateness: Duration::from_millis(200) };
    let publish = async |subject: &'static str| {
        client.publish(subject, subject.into()).await.unwrap();
        client.flush().await.unwrap();
    };
    proxy.set_messages(Some(fault(1.0, 0.0)));
    publish("live.lost").await;
    publish("other.one").await;
    assert_eq!(all.next().await.unwrap().subject.as_str(), "other.one");
    proxy.set_messages(Some(fault(0.0, 1.0)));
    publish("live.late").await;
    publish("other.two").await;
    assert_eq!(all.next().await.unwrap().subject.as_str(), "other.two");
    assert_eq!(all.next().await.unwrap().subject.as_str(), "live.late");
    assert_eq!((proxy.lost(), proxy.late()), (1, 1));
}

#[tokio::test]
async fn a_stalled_link_moves_nothing_and_a_cut_one_is_made_anew() {
    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    let (proxy, client) = through(&server).await;
    let mut all = client.subscribe("test").await.unwrap();
    client.flush().await.unwrap();
    proxy.set(Mode::Stall);
    client.publish("test", "1".into()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), all.next()).await.is_err());
    proxy.set(Mode::Pass);
    assert_eq!(all.next().await.unwrap().payload, "1");
    proxy.cut();
    // Until the client has reconnected, its messages are lost or wait.
    let again = async {
        loop {
            client.publish("test", "2".into()).await.unwrap();
            if let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(100), all.next()).await {
                return message;
            }
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    assert_eq!(message.payload, "2");
    proxy.set(Mode::Refuse);
    proxy.cut();
    assert!(async_nats::connect(format!("nats://{}", proxy.address())).await.is_err());
}
