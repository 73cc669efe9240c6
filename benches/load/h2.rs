//! HTTP/2 with prior knowledge on both sides of a proxy: a backend, and a closed loop of streams.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::affinity;
use crate::backend::body;

/// Larger than anything under way, so that flow control stops nobody.
const WINDOW_BYTES: u32 = 1 << 20;
const MAX_STREAMS: u32 = 1000;

/// A running backend. Dropping it ends the thread.
pub struct Backend {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Backend {
    /// Answers every request on a free port of 127.0.0.1 with 200 and [`body`], on `core`.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn local(core: usize) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the backend")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("backend".to_owned())
            .spawn(move || {
                let served = affinity::pin(core).and_then(|()| serve(listener, stopped));
                if let Err(error) = served {
                    eprintln!("backend: {error:#}");
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            address,
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It says itself what went wrong.
            let _ = thread.join();
        }
    }
}

fn serve(listener: std::net::TcpListener, stopped: tokio::sync::oneshot::Receiver<()>) -> anyhow::Result<()> {
    let tasks = LocalSet::new();
    let served = tasks.run_until(async {
        let listener = TcpListener::from_std(listener)?;
        let payload = Bytes::from(body());
        let accept = async {
            loop {
                let (stream, _) = listener.accept().await?;
                // A connection that breaks is the client's to notice.
                tokio::task::spawn_local(answer(stream, payload.clone()));
            }
        };
        tokio::select! {
            accepted = accept => accepted,
            _ = stopped => Ok(()),
        }
    });
    runtime()?.block_on(served)
}

async fn answer(stream: TcpStream, payload: Bytes) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS);
    let mut connection = builder.handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (_request, mut respond) = accepted?;
        let head = Response::builder()
            .header("content-type", "text/plain")
            .header("content-length", payload.len());
        respond
            .send_response(head.body(())?, false)?
            .send_data(payload.clone(), true)?;
    }
    Ok(())
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime")
}

/// Streams over connections that stay open.
pub struct Client {
    runtime: Runtime,
    tasks: LocalSet,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Cell<u64>,
    fault: RefCell<Option<anyhow::Error>>,
}

impl Client {
    /// Opens `connections` and begins a closed loop of `streams` on each; it goes on only within [`Self::run`].
    ///
    /// # Errors
    /// When a connection is refused.
    pub fn start(address: SocketAddr, connections: usize, streams: usize) -> anyhow::Result<Self> {
        let (runtime, tasks) = (runtime()?, LocalSet::new());
        let shared = Rc::new(Shared::default());
        for _ in 0..connections {
            let opened = tasks.block_on(&runtime, open(address, streams, Rc::clone(&shared)));
            opened.context("an HTTP/2 connection")?;
        }
        Ok(Self {
            runtime,
            tasks,
            shared,
        })
    }

    /// Goes on for so long and returns the number of answers.
    ///
    /// # Errors
    /// When an answer is wrong, a connection ends, or nothing comes at all.
    pub fn run(&mut self, duration: Duration) -> anyhow::Result<u64> {
        self.shared.answers.set(0);
        // Made inside: a timer belongs to the runtime that polls it.
        self.tasks
            .block_on(&self.runtime, async { tokio::time::sleep(duration).await });
        if let Some(fault) = self.shared.fault.take() {
            return Err(fault);
        }
        ensure!(self.shared.answers.get() > 0, "no answer within {duration:?}");
        Ok(self.shared.answers.get())
    }
}

async fn open(address: SocketAddr, streams: usize, shared: Rc<Shared>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let watching = Rc::clone(&shared);
    tokio::task::spawn_local(async move {
        let ended = connection.await;
        let reason = ended.map_or_else(anyhow::Error::from, |()| {
            anyhow::anyhow!("the proxy closed a connection")
        });
        watching.fault.borrow_mut().get_or_insert(reason);
    });
    let uri = format!("http://{address}/");
    for _ in 0..streams {
        let (sender, shared, uri) = (sender.clone(), Rc::clone(&shared), uri.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = keep_asking(sender, &uri, &shared).await {
                shared.fault.borrow_mut().get_or_insert(error);
            }
        });
    }
    Ok(())
}

async fn keep_asking(
    sender: h2::client::SendRequest<Bytes>,
    uri: &str,
    shared: &Shared,
) -> anyhow::Result<()> {
    let expected = body();
    let mut received = Vec::with_capacity(expected.len());
    loop {
        let mut sender = sender.clone().ready().await?;
        let request = Request::get(uri)
            .header("user-agent", "outrigger-bench")
            .body(())?;
        let (response, _) = sender.send_request(request, true)?;
        let response = response.await?;
        if response.status() != 200 {
            bail!("status {}", response.status());
        }
        let mut data = response.into_body();
        received.clear();
        while let Some(chunk) = data.data().await {
            let chunk = chunk?;
            data.flow_control().release_capacity(chunk.len())?;
            received.extend_from_slice(&chunk);
        }
        ensure!(
            received == expected,
            "a body that differs from what the backend sends: {} bytes",
            received.len()
        );
        shared.answers.set(shared.answers.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn streams_are_answered_side_by_side_and_again_after_a_pause() {
        let core = affinity::Cores::choose().map_or(0, |cores| cores.load);
        let backend = Backend::local(core).unwrap();
        let mut client = Client::start(backend.address, 2, 5).unwrap();
        assert!(client.run(Duration::from_millis(100)).unwrap() > 10);
        assert!(client.run(Duration::from_millis(100)).unwrap() > 10);
        drop(backend);
        assert!(
            client.run(Duration::from_millis(100)).is_err(),
            "a closed connection is an error"
        );
    }
}
