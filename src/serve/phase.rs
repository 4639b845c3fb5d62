//! What a connection is waiting for, so that a slow head can be told from an idle connection.
//!
//! hyper has one timer for both. Proxies keep connections idle for a minute and more; a head that takes that long is an attack.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use futures::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Where a connection is in its exchange of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A request's head is arriving, or that of the first request is due.
    Head,
    /// The request of this number is being served, or bytes of an answer wait for the client to take them.
    Served(u64),
    /// The response is over and nothing of the next request has come.
    Idle,
}

pub(super) type Marker = Arc<watch::Sender<Phase>>;

/// The phase of a new connection: who marks it, and who watches it.
pub(super) fn phase() -> (Marker, watch::Receiver<Phase>) {
    let (marker, phases) = watch::channel(Phase::Head);
    (Arc::new(marker), phases)
}

/// Returns when a head has been arriving for `limit`.
pub(super) async fn head_overdue(mut phases: watch::Receiver<Phase>, limit: Duration) {
    loop {
        let arriving = *phases.borrow_and_update() == Phase::Head;
        let changed = phases.changed();
        let outcome = if arriving {
            match tokio::time::timeout(limit, changed).await {
                Ok(outcome) => outcome,
                Err(_) => return,
            }
        } else {
            changed.await
        };
        if outcome.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The number of no request.
const NOBODY: u64 = 0;

/// A stream whose first bytes after a response begin a head.
pub(super) struct PhasedIo<S> {
    stream: S,
    phase: Marker,
}

impl<S> PhasedIo<S> {
    pub(super) fn new(stream: S, phase: Marker) -> Self {
        Self { stream, phase }
    }

    /// An answer is over for its writer before the client has taken all of it. Until then nothing of a next head counts.
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        let pending = written.is_pending();
        self.phase.send_if_modified(|phase| {
            let next = match (pending, *phase) {
                (true, Phase::Head | Phase::Idle) => Phase::Served(NOBODY),
                (false, Phase::Served(NOBODY)) => Phase::Idle,
                _ => return false,
            };
            *phase = next;
            true
        });
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PhasedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.phase.send_if_modified(|phase| {
                let begins = *phase == Phase::Idle;
                if begins {
                    *phase = Phase::Head;
                }
                begins
            });
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PhasedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A service that marks when it has a request, and when the response is over.
pub(super) struct PhasedService<S> {
    service: S,
    phase: Marker,
    requests: AtomicU64,
}

impl<S> PhasedService<S> {
    pub(super) fn new(service: S, phase: Marker) -> Self {
        Self { service, phase, requests: AtomicU64::new(NOBODY) }
    }
}

impl<S> Service<Request<Incoming>> for PhasedService<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.requests.fetch_add(1, Relaxed) + 1;
        self.phase.send_replace(Phase::Served(number));
        let (answer, end) = (self.service.call(request), End(Arc::clone(&self.phase), number));
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Tail { body, _end: end }))) })
    }
}

/// Marks the end of a response when it is dropped, unless the next request is being served already.
struct End(Marker, u64);

impl Drop for End {
    fn drop(&mut self) {
        self.0.send_if_modified(|phase| {
            let ends = *phase == Phase::Served(self.1);
            if ends {
                *phase = Phase::Idle;
            }
            ends
        });
    }
}

/// A body that holds the [`End`].
struct Tail {
    body: Body,
    _end: End,
}

impl HttpBody for Tail {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    async fn is_overdue(phases: watch::Receiver<Phase>, patience: Duration) -> bool {
        tokio::time::timeout(patience, head_overdue(phases, LIMIT)).await.is_ok()
    }

    #[tokio::test]
    async fn only_a_head_that_is_arriving_can_be_overdue() {
        let (marker, phases) = phase();
        assert!(is_overdue(phases.clone(), 2 * LIMIT).await, "the first head is due from the start");
        for quiet in [Phase::Served(1), Phase::Idle] {
            marker.send_replace(quiet);
            assert!(!is_overdue(phases.clone(), 4 * LIMIT).await, "{quiet:?}");
        }
    }

    #[tokio::test]
    async fn bytes_after_a_response_begin_a_head_and_bytes_of_a_body_do_not() {
        let (marker, phases) = phase();
        let mut io = PhasedIo::new(&b"abc"[..], Arc::clone(&marker));
        let mut byte = [0];
        for (before, after) in
            [(Phase::Served(1), Phase::Served(1)), (Phase::Idle, Phase::Head), (Phase::Head, Phase::Head)]
        {
            marker.send_replace(before);
            let read = |context: &mut Context<'_>| Pin::new(&mut io).poll_read(context, &mut ReadBuf::new(&mut byte));
            std::future::poll_fn(read).await.unwrap();
            assert_eq!(*phases.borrow(), after);
        }
    }

    #[test]
    fn an_answer_that_waits_for_its_client_is_being_served() {
        let (marker, phases) = phase();
        let io = PhasedIo::new((), Arc::clone(&marker));
        for (before, pending, after) in [
            (Phase::Served(3), Poll::Pending, Phase::Served(3)),
            (Phase::Served(3), Poll::Ready(()), Phase::Served(3)),
            (Phase::Idle, Poll::Pending, Phase::Served(NOBODY)),
            (Phase::Head, Poll::Pending, Phase::Served(NOBODY)),
            (Phase::Served(NOBODY), Poll::Ready(()), Phase::Idle),
        ] {
            marker.send_replace(before);
            let _ = io.note(pending);
            assert_eq!(*phases.borrow(), after);
        }
        marker.send_replace(Phase::Served(2));
        drop(End(Arc::clone(&marker), 1));
        assert_eq!(*phases.borrow(), Phase::Served(2), "the end of an earlier answer is not that of the next");
    }
}
