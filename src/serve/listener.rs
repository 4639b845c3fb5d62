//! The accept loop: HTTP/1.1 with a time limit on headers, and connections that can be asked to close.
//!
//! Not `axum::serve`, which sets no timer: slow headers would hold connections for ever.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Longest time for a request's headers to arrive.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and its connections.
pub(super) struct Server {
    listener: TcpListener,
    service: TowerToHyperService<Router>,
    http: http1::Builder,
    connections: GracefulShutdown,
}

impl Server {
    pub(super) fn new(listener: TcpListener, router: Router) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(HEAD_BYTES);
        Self { listener, service: TowerToHyperService::new(router), http, connections: GracefulShutdown::new() }
    }

    /// Accepts connections for ever; cancel it at any time.
    pub(super) async fn accept(&mut self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.start(stream),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Stops listening, lets each connection finish its response, and returns when all are closed.
    pub(super) async fn close(self) {
        drop(self.listener);
        self.connections.shutdown().await;
    }

    fn start(&self, stream: TcpStream) {
        // Tokens are small writes that must not wait for each other.
        let _ = stream.set_nodelay(true);
        let connection = self.http.serve_connection(TokioIo::new(stream), self.service.clone());
        let connection = self.connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}
