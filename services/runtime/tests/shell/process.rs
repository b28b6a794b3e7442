//! Services from an operator's view: their output and their exit codes.

use std::net::TcpListener;

use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    ports::free_port,
    processes::{Service, ServiceOptions},
};

use crate::support::{LIMIT, World, until};

const SERVICES: [&str; 3] = ["millrace-edge", "millrace-worker", "millrace-projector"];

fn spawn(name: &str, args: &[&str], env: &[(&str, &str)]) -> Service {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Service::spawn(name, ServiceOptions { args, env, ..Default::default() }).expect("the binary")
}

/// Waits until the service ends by itself; returns exit code and output.
async fn end_of(mut service: Service) -> (Option<i32>, String) {
    let status = service.wait(LIMIT).await.expect("it ends by itself");
    (status.code(), service.log_tail())
}

#[tokio::test]
async fn a_configuration_with_several_errors_ends_with_78_and_names_each_once_without_secrets() {
    for name in SERVICES {
        let args = ["--nats-url", "nats://me:hunter2@127.0.0.1:port", "--log-format", "xml"];
        let env =
            [("MILLRACE_ADMIN_LISTEN", "9101"), ("MILLRACE_LOG", "millrace=loud"), ("MILLRACE_NATS_CREDENTIALS", "")];
        let (code, output) = end_of(spawn(name, &args, &env)).await;
        assert_eq!(code, Some(78), "{output}");
        for setting in ["--nats-url", "--log-format", "MILLRACE_ADMIN_LISTEN", "MILLRACE_LOG:"] {
            assert_eq!(output.matches(setting).count(), 1, "{setting}: {output}");
        }
        assert!(output.contains("xml") && output.contains("9101"), "what was given is shown: {output}");
        assert!(output.contains(&format!("{name} --help")), "{output}");
        assert!(!output.contains("hunter2"), "{output}");
    }
}

#[tokio::test]
async fn a_services_own_bad_settings_are_named_together_with_the_common_ones() {
    let own = ["--listen", "3001", "--public-base-url", "localhost", "--storage", "ftp://x", "--drain-seconds", "soon"];
    let (code, output) = end_of(spawn("millrace-edge", &[&own[..], &["--admin-listen", "x"]].concat(), &[])).await;
    assert_eq!(code, Some(78), "{output}");
    for setting in own.iter().step_by(2).chain(&["--admin-listen"]) {
        assert_eq!(output.matches(setting).count(), 1, "{setting}: {output}");
    }
}

#[tokio::test]
async fn a_password_or_token_in_the_address_of_nats_is_refused_and_not_shown() {
    for url in ["nats://me:hunter2@127.0.0.1:4222", "nats://127.0.0.1:4222,nats://hunter2@127.0.0.1:4223"] {
        let (code, output) = end_of(spawn("millrace-projector", &["--nats-url", url], &[])).await;
        assert_eq!(code, Some(78), "{output}");
        assert!(output.contains("--nats-credentials") && !output.contains("hunter2"), "{output}");
    }
}

#[tokio::test]
async fn a_service_waits_for_nats_says_so_and_may_be_stopped_meanwhile() {
    let url = format!("nats://127.0.0.1:{}", free_port());
    for name in SERVICES {
        let admin = format!("127.0.0.1:{}", free_port());
        let mut service = spawn(name, &["--admin-listen", &admin, "--nats-url", &url], &[]);
        until("it waits for NATS", async || service.log_tail().contains("cannot reach NATS")).await;
        let ready = reqwest::get(format!("http://{admin}/readyz")).await.unwrap();
        assert_eq!(ready.status(), 503);
        let ready = ready.text().await.unwrap();
        assert!(ready.contains("nats: cannot connect"), "{ready}");
        assert_eq!(service.terminate(LIMIT).await.unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn a_taken_admin_port_is_told_in_one_sentence_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in SERVICES {
        let (code, output) = end_of(spawn(name, &["--admin-listen", &address], &[])).await;
        assert_eq!(code, Some(1), "{output}");
        assert_eq!(output.lines().count(), 1, "{output}");
        for word in [name, &address, "another process", "--admin-listen"] {
            assert!(output.contains(word), "{word} is not in: {output}");
        }
    }
}

#[tokio::test]
async fn a_service_does_not_start_on_a_nats_that_is_not_provisioned_and_says_what_to_do() {
    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    let folder = std::env::temp_dir().join(format!("millrace-process-{}", std::process::id()));
    let storage = folder.display().to_string();
    // The worker checks its tools first.
    for name in ["millrace-edge", "millrace-projector"] {
        let (admin, listen) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let url = server.url();
        let mut args = vec!["--admin-listen", &admin, "--nats-url", &url];
        if name == "millrace-edge" {
            args.extend(["--listen", &listen, "--storage", &storage]);
        }
        let (code, output) = end_of(spawn(name, &args, &[])).await;
        assert_eq!(code, Some(1), "{output}");
        for word in ["NATS is not set up as needed", "stream JOBS is missing", "millrace provision"] {
            assert!(output.contains(word), "{word} is not in {name}'s: {output}");
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test]
async fn sigterm_ends_a_service_with_exit_code_0_and_readiness_fails_before() {
    let world = World::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let url = world.server.url();
    let mut service = spawn("millrace-projector", &["--admin-listen", &address, "--nats-url", &url], &[]);
    service.wait_ready(&format!("http://{address}"), LIMIT).await.unwrap();
    let status = service.terminate(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(service.log_tail().contains("SIGTERM"), "{}", service.log_tail());
}

#[tokio::test]
async fn a_service_whose_nats_goes_away_is_not_ready_stays_alive_and_recovers() {
    let mut world = World::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let url = world.server.url();
    let mut service = spawn("millrace-projector", &["--admin-listen", &address, "--nats-url", &url], &[]);
    let admin = format!("http://{address}");
    service.wait_ready(&admin, LIMIT).await.unwrap();
    world.server.kill();
    let get = async |path: &str| reqwest::get(format!("{admin}{path}")).await.unwrap().status().as_u16();
    until("it is not ready", async || get("/readyz").await == 503).await;
    assert_eq!(get("/livez").await, 200);
    world.server.restart().await.unwrap();
    service.wait_ready(&admin, LIMIT).await.unwrap();
}
