//! Load from inside a namespace: many requests, every one with its outcome and its time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outrigger_demo::http1::{Kind, Reader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

use crate::http::{self, Request};
use crate::netns::Namespace;

/// Longest wait for one response.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub address: SocketAddr,
    /// The same request each time.
    pub request: Request,
    /// Requests under way at once, at most.
    pub parallel: usize,
    /// Whether connections are kept from request to request.
    pub keeps_alive: bool,
    /// Time from the beginning of one request to the beginning of the next, whether or not there is a response yet;
    /// with zero the next begins as soon as `parallel` allows.
    pub every: Duration,
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it began.
    pub begun: Instant,
    /// Until the response was whole, or failed.
    pub took: Duration,
    /// Status, and the version of the application that answered (empty for a local reply); or why there is none.
    pub outcome: Result<(u16, String), String>,
    /// Body of a response that is not the application's.
    pub local_reply: Option<String>,
}

/// What came of all requests, in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every request.
    pub samples: Vec<Sample>,
}

impl Report {
    /// Requests that got no 200: as text, with how often.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut failures = BTreeMap::new();
        for sample in &self.samples {
            let failure = match &sample.outcome {
                Ok((200, _)) => continue,
                Ok((status, _)) => format!("{status} {}", sample.local_reply.as_deref().unwrap_or_default()),
                Err(error) => error.clone(),
            };
            *failures.entry(failure).or_default() += 1;
        }
        failures
    }

    /// Percent of all requests that `version` answered with 200.
    pub fn share(&self, version: &str) -> f64 {
        let answered = self
            .samples
            .iter()
            .filter(|sample| matches!(&sample.outcome, Ok((200, by)) if by == version));
        percent(answered.count(), self.samples.len())
    }

    /// Percent of all requests that got `status`.
    pub fn status_share(&self, status: u16) -> f64 {
        let got = self
            .samples
            .iter()
            .filter(|sample| matches!(&sample.outcome, Ok((got, _)) if *got == status));
        percent(got.count(), self.samples.len())
    }

    /// The requests begun at or after `start` and before `end`.
    pub fn between(&self, start: Instant, end: Instant) -> Self {
        let within = |sample: &&Sample| (start..end).contains(&sample.begun);
        Self {
            samples: self.samples.iter().filter(within).cloned().collect(),
        }
    }

    /// The longest time a request took.
    pub fn slowest(&self) -> Duration {
        self.samples
            .iter()
            .map(|sample| sample.took)
            .max()
            .unwrap_or_default()
    }
}

/// Load that runs until it is told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Report>>,
}

#[derive(Debug)]
struct Shared {
    stops: AtomicBool,
    /// Requests begun.
    begun: AtomicU64,
    /// Numbers of the requests that have begun and not ended.
    under_way: Mutex<BTreeSet<u64>>,
    limit: u64,
}

impl Load {
    /// Starts sending.
    pub fn start(namespace: &Namespace, plan: Plan) -> Self {
        Self::limited(namespace, plan, u64::MAX)
    }

    fn limited(namespace: &Namespace, plan: Plan, limit: u64) -> Self {
        let shared = Arc::new(Shared {
            stops: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            under_way: Mutex::default(),
            limit,
        });
        let inside = Arc::clone(&shared);
        let thread = namespace.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(run(plan, &inside))
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Requests begun so far.
    pub fn begun(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Waits until every request that has begun by now has ended, but not longer than `patience`.
    pub fn settle(&self, patience: Duration) {
        let (start, begun) = (Instant::now(), self.begun());
        while start.elapsed() < patience
            && lock(&self.shared.under_way)
                .first()
                .is_some_and(|first| *first < begun)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins no more, and waits for those under way.
    pub fn stop(mut self) -> Report {
        self.shared.stops.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Report {
        let thread = self.thread.take().expect("joined once");
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
    }
}

/// Sends `requests` requests and waits for all.
pub fn send(namespace: &Namespace, plan: Plan, requests: u64) -> Report {
    Load::limited(namespace, plan, requests).join()
}

/// Idle connections and finished samples.
#[derive(Debug, Default)]
struct Sender {
    idle: Mutex<Vec<Connection>>,
    samples: Mutex<Vec<Sample>>,
}

async fn run(plan: Plan, shared: &Arc<Shared>) -> Report {
    let sender = Arc::new(Sender::default());
    let wire: Arc<[u8]> = plan.request.wire().into();
    let places = Arc::new(Semaphore::new(plan.parallel));
    let mut next = tokio::time::Instant::now();
    while !shared.stops.load(Ordering::Relaxed) {
        let number = shared.begun.fetch_add(1, Ordering::Relaxed);
        if number >= shared.limit {
            break;
        }
        tokio::time::sleep_until(next).await;
        next += plan.every;
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        let (plan, wire, sender, shared) = (
            plan.clone(),
            Arc::clone(&wire),
            Arc::clone(&sender),
            Arc::clone(shared),
        );
        lock(&shared.under_way).insert(number);
        tokio::spawn(async move {
            one(&plan, &wire, &sender).await;
            lock(&shared.under_way).remove(&number);
            drop(place);
        });
    }
    let parallel = u32::try_from(plan.parallel).expect("a small number");
    let _all_done = places.acquire_many(parallel).await.expect("never closed");
    Report {
        samples: std::mem::take(&mut *lock(&sender.samples)),
    }
}

async fn one(plan: &Plan, wire: &[u8], sender: &Sender) {
    let begun = Instant::now();
    let mut connection = if plan.keeps_alive {
        lock(&sender.idle).pop()
    } else {
        None
    };
    let outcome = match tokio::time::timeout(PATIENCE, exchange(plan, wire, &mut connection)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no response within {PATIENCE:?}")),
    };
    if outcome.is_ok() && plan.keeps_alive {
        lock(&sender.idle).extend(connection);
    }
    lock(&sender.samples).push(sample(begun, outcome));
}

#[derive(Debug)]
struct Connection {
    reader: Reader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

async fn exchange(plan: &Plan, wire: &[u8], kept: &mut Option<Connection>) -> io::Result<http::Response> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(plan.address).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Connection {
                reader: Reader::new(read, Kind::Response),
                write,
            }
        }
    };
    connection.write.write_all(wire).await?;
    let response = http::read(&mut connection.reader).await?;
    if !connection.reader.is_last() {
        *kept = Some(connection);
    }
    Ok(response)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sample(begun: Instant, outcome: Result<http::Response, String>) -> Sample {
    let took = begun.elapsed();
    let version =
        |response: &http::Response| response.seen()["version"].as_str().unwrap_or_default().to_owned();
    match outcome {
        Err(error) => Sample {
            begun,
            took,
            outcome: Err(error),
            local_reply: None,
        },
        Ok(response) => {
            let version = version(&response);
            let local_reply = version.is_empty().then(|| response.body.clone());
            Sample {
                begun,
                took,
                outcome: Ok((response.status(), version)),
                local_reply,
            }
        }
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
