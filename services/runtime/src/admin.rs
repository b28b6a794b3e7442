//! The admin port: `/livez`, `/readyz`, `/metrics`. Never on a client port.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use millrace_domain::limits::LISTEN_BACKLOG;

/// The conditions for the process to receive work; each check is a latch that one owner sets.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Latch>>>);

struct Latch {
    name: &'static str,
    state: Result<(), String>,
}

impl Health {
    /// Adds a check that fails until its owner passes it. Several owners may each have a check of the same name.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        let mut checks = self.0.lock().expect("no panic while held");
        checks.push(Latch { name, state: Err("starting".to_owned()) });
        Check { health: self.clone(), index: checks.len() - 1 }
    }

    /// The reasons of all failing checks: each reason once, in the order of the names.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let checks = self.0.lock().expect("no panic while held");
        let failure = |check: &Latch| Some(format!("{}: {}", check.name, check.state.as_ref().err()?));
        BTreeSet::from_iter(checks.iter().filter_map(failure)).into_iter().collect()
    }
}

/// One named check.
#[derive(Clone)]
pub struct Check {
    health: Health,
    index: usize,
}

impl Check {
    /// Marks the check as passing.
    pub fn pass(&self) {
        self.set(Ok(()));
    }

    /// Marks the check as failing.
    pub fn fail(&self, why: impl Into<String>) {
        self.set(Err(why.into()));
    }

    fn set(&self, state: Result<(), String>) {
        self.health.0.lock().expect("no panic while held")[self.index].state = state;
    }
}

/// Binds an address; the error says what to do.
///
/// # Errors
/// When the address is in use or is not one of this host's.
pub fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    listen().with_context(|| {
        format!("cannot listen on {address}: is another process using the port? choose another one with --{flag}")
    })
}

/// Serves the admin port until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    registry: Registry,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state((health, registry));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

async fn readyz(State((health, _)): State<(Health, Registry)>) -> impl IntoResponse {
    let failures = health.failures();
    if failures.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failures.join("\n") + "\n")
    }
}

async fn metrics(State((_, registry)): State<(Health, Registry)>) -> impl IntoResponse {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut body) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], body),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("cannot encode the metrics: {error}\n").into_bytes(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_does_not_pass_the_check_of_another_and_a_reason_is_reported_once() {
        let health = Health::default();
        let (one, other) = (health.check("queue"), health.check("queue"));
        assert_eq!(health.failures(), ["queue: starting"]);
        one.pass();
        assert_eq!(health.failures(), ["queue: starting"]);
        other.pass();
        assert!(health.failures().is_empty());
        one.fail("away");
        other.pass();
        assert_eq!(health.failures(), ["queue: away"]);
    }
}
