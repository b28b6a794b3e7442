//! The admin port: `/livez`, `/readyz`, `/metrics`. Never on a client port.

use std::{
    collections::BTreeMap,
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

/// What must be well for the process to be sent work, by name; each is a latch that its owner sets.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// Adds a check that is not well until its owner says so.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check { health: self.clone(), name };
        check.fail("starting");
        check
    }

    /// What is not well.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let checks = self.0.lock().expect("no panic while held");
        checks.iter().filter_map(|(name, state)| state.as_ref().err().map(|why| format!("{name}: {why}"))).collect()
    }
}

/// One named check.
#[derive(Clone)]
pub struct Check {
    health: Health,
    name: &'static str,
}

impl Check {
    /// It is well.
    pub fn pass(&self) {
        self.set(Ok(()));
    }

    /// It is not well.
    pub fn fail(&self, why: impl Into<String>) {
        self.set(Err(why.into()));
    }

    fn set(&self, state: Result<(), String>) {
        self.health.0.lock().expect("no panic while held").insert(self.name, state);
    }
}

/// Binds an address, with an error that says what to do.
///
/// # Errors
/// When the address is taken or not ours.
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
