//! A server inside this process, on its own thread and runtime.
//!
//! It keeps answering while a test blocks its own runtime, and dropping it closes every connection at once.

use std::{net::SocketAddr, thread::JoinHandle};

use anyhow::Context;
use tokio::{net::TcpListener, sync::oneshot};

pub(crate) struct Serving {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Listens on `address` and runs what `serve` returns until dropped.
    pub(crate) fn start<F>(
        name: &str,
        address: SocketAddr,
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = ()>,
    {
        let listener = std::net::TcpListener::bind(address)
            .with_context(|| format!("the {name} cannot listen on {address}; choose another port"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async move {
                if let Ok(listener) = TcpListener::from_std(listener) {
                    tokio::select! {
                        () = serve(listener) => {}
                        _ = stopped => {}
                    }
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
