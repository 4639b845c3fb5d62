//! The accept loop: HTTP/1.1 with time limits on headers, on idleness and on unread answers; connections can be asked to close.
//!
//! Not `axum::serve`, which sets no timer: slow headers and slow readers would hold connections for ever.

use super::phase::{PhasedIo, PhasedService, head_overdue, phase};
use crate::api::layers::HEAD_BYTES;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

/// Longest time for a request's headers to arrive, from their first byte; for a connection's first ones from its start.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Longest time between a response and the next request, which is longer than the minute for which proxies keep connections.
/// It bounds a head too whose beginning came while the request before it was being served.
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// Longest time that a client may take no byte of its answer. Then the connection ends, and with it the generation.
const UNREAD_LIMIT: Duration = Duration::from_secs(30);
/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and its connections.
pub(super) struct Server {
    listener: TcpListener,
    service: TowerToHyperService<Router>,
    http: http1::Builder,
    connections: GracefulShutdown,
    unread_limit: Duration,
    header_limit: Duration,
}

impl Server {
    pub(super) fn new(listener: TcpListener, router: Router) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(IDLE_LIMIT).max_buf_size(2 * HEAD_BYTES);
        let (service, connections) = (TowerToHyperService::new(router), GracefulShutdown::new());
        Self { listener, service, http, connections, unread_limit: UNREAD_LIMIT, header_limit: HEADER_LIMIT }
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
        let (hung_up, header_limit) = (hung_up(&stream), self.header_limit);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.unread_limit));
        let (phase, phases) = phase();
        let service = PhasedService::new(self.service.clone(), Arc::clone(&phase));
        let io = TokioIo::new(PhasedIo::new(Box::pin(stream), phase));
        let connection = self.http.serve_connection(io, service);
        let connection = self.connections.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                outcome = connection => if let Err(error) = outcome {
                    tracing::debug!(%error, "connection ended");
                },
                () = hung_up => tracing::debug!("the client hung up"),
                () = head_overdue(phases, header_limit) => tracing::debug!("a request's headers did not arrive"),
            }
        });
    }
}

/// Returns when the client has closed its side. HTTP's own reader does not see that while a byte too many waits behind the
/// request, and a whole answer would be generated for nobody.
fn hung_up(stream: &TcpStream) -> impl Future<Output = ()> + use<> {
    let copy = stream.as_fd().try_clone_to_owned();
    let watch = copy.and_then(|copy| TcpStream::from_std(copy.into()));
    async move {
        // Without a descriptor to spare, the writer notices.
        let Ok(watch) = watch else { return std::future::pending().await };
        while let Ok(ready) = watch.ready(Interest::READABLE).await {
            if ready.is_read_closed() {
                return;
            }
            // Leaves the bytes to their reader, and waits for what comes after them.
            let _ = watch.try_io(Interest::READABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use std::convert::Infallible;
    use std::io::{Read, Write};
    use tokio::sync::mpsc;

    /// An answer without end that tells when it is dropped.
    fn endless(dropped: mpsc::Sender<()>) -> Router {
        let body = move || {
            let held = dropped.clone();
            futures::stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536]))
            })
        };
        Router::new().route("/", get(move || async move { Body::from_stream(body()) }))
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_loses_its_answer() {
        let (held, mut dropped) = mpsc::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server::new(listener, endless(held));
        server.unread_limit = Duration::from_millis(100);
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        server.start(server.listener.accept().await.unwrap().0);
        // The connection holds the router: when the body and all else of it are gone, no sender is left.
        let Server { connections, service, .. } = server;
        drop(service);
        tokio::time::timeout(Duration::from_secs(20), dropped.recv()).await.expect("the answer lives on");
        let mut first = [0; 12];
        client.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        drop(connections);
    }

    /// Neither a long answer nor a pause after it is a slow head; half a head is.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_a_head_that_does_not_arrive_ends_a_connection() {
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            "done"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server::new(listener, Router::new().route("/", get(slow)));
        server.header_limit = Duration::from_millis(300);
        let talk = tokio::task::spawn_blocking(move || {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut answer = [0; 1000];
            for _ in 0..2 {
                client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
                let length = client.read(&mut answer).unwrap();
                assert!(answer[..length].ends_with(b"done"), "{}", String::from_utf8_lossy(&answer[..length]));
                std::thread::sleep(Duration::from_millis(600));
            }
            client.write_all(b"GET / HT").unwrap();
            client.read(&mut answer).map_or(0, |length| length)
        });
        let accepted = server.listener.accept().await.unwrap().0;
        server.start(accepted);
        assert_eq!(talk.await.unwrap(), 0, "half a head was answered");
    }
}
