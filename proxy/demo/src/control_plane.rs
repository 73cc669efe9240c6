//! A control plane under the caller's hand: serves captures, replays recordings, pushes what it is told to.
//!
//! Speaks ADS as istiod does: delta (and state-of-the-world), no resource versions, an answer to every new name, an empty
//! `ClusterLoadAssignment` or `RouteConfiguration` for a name that it does not know. A node is known by the third part of
//! its id up to the first dot: `sidecar~10.20.0.11~front.default~…` is `front`.
//!
//! Source: istio.io/istio pilot/pkg/xds/delta.go; recordings of real istiods.

mod journal;
mod recording;
mod resource;
mod service;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use prost::Message;
use tokio::sync::{Notify, oneshot};
use tonic::transport::server::{Server, TcpIncoming};

pub use journal::{Journal, Received, Sent, Verdict};
pub use recording::{RecordedStep, Recording};
pub use resource::{CLUSTER, CaptureError, ENDPOINTS, LISTENER, NAME_TABLE, Named, ROUTES, Snapshot};

use stream::{Asked, Outlet, Stream, Wanted};

/// Serves any number of nodes. Clones are the same control plane.
#[derive(Clone, Debug, Default)]
pub struct ControlPlane {
    shared: Arc<Shared>,
}

/// A wait that ended without what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Nothing of the kind within the time.
    #[error("{what}: not within {waited:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The node has no stream.
    #[error("node {node} is not connected")]
    NotConnected {
        /// Which node.
        node: String,
    },
    /// The node has no recorded step left, or no recording.
    #[error("node {node} has no recorded step left")]
    NoStep {
        /// Which node.
        node: String,
    },
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    streams: BTreeMap<u64, Stream>,
    streams_opened: u64,
    nonces: u64,
    journal: Journal,
    server: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Node {
    snapshot: Snapshot,
    steps: Vec<RecordedStep>,
    /// Recorded answers to the first subscriptions, not yet given.
    held: Vec<DeltaDiscoveryResponse>,
}

impl ControlPlane {
    /// Knows no node and listens nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `node` from `snapshot` from now on.
    pub fn serve(&self, node: &str, snapshot: Snapshot) {
        self.lock().nodes.insert(
            node.to_owned(),
            Node {
                snapshot,
                ..Node::default()
            },
        );
    }

    /// Answers `node` with the first step of `recording`, byte for byte; the others come with [`Self::step`].
    pub fn replay(&self, node: &str, mut recording: Recording) {
        let mut replayed = Node::default();
        if !recording.steps.is_empty() {
            replayed.held = recording.steps.remove(0).responses;
        }
        for response in &replayed.held {
            apply(&mut replayed.snapshot, response);
        }
        recording.steps.reverse();
        replayed.steps = recording.steps;
        self.lock().nodes.insert(node.to_owned(), replayed);
    }

    /// Serves ADS on `listener`, as long as it is not stopped. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the listener cannot be handed to the runtime.
    pub fn listen(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let incoming =
            TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
        let (stop, stopped) = oneshot::channel();
        self.lock().server = Some(stop);
        let service = AggregatedDiscoveryServiceServer::new(self.clone());
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async {
                // Dropping the sender stops the server as well.
                let _ = stopped.await;
            });
        tokio::spawn(server);
        Ok(())
    }

    /// Ends every stream and stops listening. [`Self::listen`] brings it back.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.server = None;
        for stream in std::mem::take(&mut state.streams).values() {
            stream.end();
        }
    }

    /// Ends the streams of `node`; it may come back at once.
    pub fn drop_streams(&self, node: &str) {
        let mut state = self.lock();
        state.streams.retain(|_, stream| {
            let drops = stream.node.as_deref() == Some(node);
            if drops {
                stream.end();
            }
            !drops
        });
    }

    /// The resource as `node` would get it.
    pub fn find(&self, node: &str, type_url: &str, name: &str) -> Option<Named> {
        self.lock()
            .nodes
            .get(node)?
            .snapshot
            .find(type_url, name)
            .cloned()
    }

    /// Changes one resource of `node` and pushes it. The nonce, or nothing when there is no such resource, it is no `M`,
    /// or the node is not connected (it gets the change when it comes).
    pub fn edit<M: Message + Default>(
        &self,
        node: &str,
        type_url: &str,
        name: &str,
        change: impl FnOnce(&mut M),
    ) -> Option<String> {
        let mut message = M::decode(self.find(node, type_url, name)?.any.value.as_slice()).ok()?;
        change(&mut message);
        self.push(
            node,
            type_url,
            vec![Named::from_message(type_url, &message)],
            Vec::new(),
        )
    }

    /// Makes `resources` and `removed` part of what `node` gets, and sends them. The nonce, if the node is connected.
    pub fn push(
        &self,
        node: &str,
        type_url: &str,
        resources: Vec<Named>,
        removed: Vec<String>,
    ) -> Option<String> {
        let mut state = self.lock();
        let nonce = state.nonce();
        let response = stream::response(type_url, nonce.clone(), resources, removed);
        let is_sent = state.push(node, response);
        drop(state);
        self.shared.changed.notify_waiters();
        is_sent.then_some(nonce)
    }

    /// Sends the responses of the next recorded step and waits until each is answered that is due an answer.
    ///
    /// # Errors
    /// [`WaitError`] when there is no step, no stream, or no answer within `patience`.
    pub async fn step(&self, node: &str, patience: Duration) -> Result<Vec<Sent>, WaitError> {
        let nonces = self.send_step(node)?;
        self.wait(
            &format!("answers of {node} to a recorded step"),
            patience,
            |journal| {
                let sent: Vec<Sent> = nonces
                    .iter()
                    .filter_map(|nonce| journal.response(nonce).cloned())
                    .collect();
                sent.iter()
                    .all(|sent| sent.verdict.is_some() || !sent.is_subscribed)
                    .then_some(sent)
            },
        )
        .await
    }

    /// Waits for the answer to the response with `nonce`.
    ///
    /// # Errors
    /// [`WaitError::Timeout`].
    pub async fn verdict(&self, nonce: &str, patience: Duration) -> Result<Verdict, WaitError> {
        self.wait(&format!("an answer to {nonce}"), patience, |journal| {
            journal
                .response(nonce)?
                .verdict
                .clone()
                .map(|(verdict, _)| verdict)
        })
        .await
    }

    /// Waits until `found` finds what it looks for in the journal.
    ///
    /// # Errors
    /// [`WaitError::Timeout`], naming `what`.
    pub async fn wait<T>(
        &self,
        what: &str,
        patience: Duration,
        mut found: impl FnMut(&Journal) -> Option<T>,
    ) -> Result<T, WaitError> {
        let search = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(answer) = found(&self.lock().journal) {
                    return answer;
                }
                changed.await;
            }
        };
        let timeout = || WaitError::Timeout {
            what: what.to_owned(),
            waited: patience,
        };
        tokio::time::timeout(patience, search)
            .await
            .map_err(|_| timeout())
    }

    /// A copy of all that passed so far.
    pub fn journal(&self) -> Journal {
        self.lock().journal.clone()
    }

    fn send_step(&self, node: &str) -> Result<Vec<String>, WaitError> {
        let mut state = self.lock();
        if !state
            .streams
            .values()
            .any(|stream| stream.node.as_deref() == Some(node))
        {
            return Err(WaitError::NotConnected {
                node: node.to_owned(),
            });
        }
        let step = state.nodes.get_mut(node).and_then(|node| node.steps.pop());
        let step = step.ok_or_else(|| WaitError::NoStep {
            node: node.to_owned(),
        })?;
        let mut nonces = Vec::new();
        for response in step.responses {
            nonces.push(response.nonce.clone());
            state.push(node, response);
        }
        Ok(nonces)
    }

    pub(self) fn opened(&self, outlet: Outlet) -> u64 {
        let mut state = self.lock();
        state.streams_opened += 1;
        let id = state.streams_opened;
        state.streams.insert(id, Stream::new(outlet));
        id
    }

    pub(self) fn asked(&self, stream: u64, asked: Asked) {
        self.lock().asked(stream, asked);
        self.shared.changed.notify_waiters();
    }

    pub(self) fn closed(&self, stream: u64) {
        self.lock().streams.remove(&stream);
        self.shared.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("demo-{}", self.nonces)
    }

    /// Applies a response to the node's snapshot and sends it on the node's streams.
    fn push(&mut self, name: &str, response: DeltaDiscoveryResponse) -> bool {
        let Some(node) = self.nodes.get_mut(name) else {
            return false;
        };
        apply(&mut node.snapshot, &response);
        let streams: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, s)| s.node.as_deref() == Some(name))
            .map(|(id, _)| *id)
            .collect();
        streams
            .into_iter()
            .map(|id| self.send(id, name, response.clone()))
            .fold(false, |any, sent| any | sent)
    }

    fn asked(&mut self, id: u64, asked: Asked) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(node_id) = asked.node_id.as_deref().filter(|id| !id.is_empty()) {
            stream.node = Some(node_name(node_id).to_owned());
        }
        let node = stream.node.clone();
        let wanted = stream.subscribe(&asked);
        if !asked.nonce.is_empty() {
            let verdict = asked.error.clone().map_or(Verdict::Ack, Verdict::Nack);
            self.journal.answered(&asked.nonce, verdict);
        }
        let (type_url, held) = (asked.type_url.clone(), asked.held);
        self.journal.note_received(Received {
            stream: id,
            node: node.clone(),
            type_url: asked.type_url,
            subscribe: asked.subscribe,
            unsubscribe: asked.unsubscribe,
            initial_versions: held.len(),
            nonce: asked.nonce,
            error: asked.error,
            at: Instant::now(),
        });
        if let Some(node) = node {
            for response in self.answers(&node, &type_url, wanted, &held) {
                self.send(id, &node, response);
            }
        }
    }

    /// `held`: what the client has; what of it is no more is said, as istiod does.
    fn answers(
        &mut self,
        node: &str,
        type_url: &str,
        wanted: Wanted,
        held: &[String],
    ) -> Vec<DeltaDiscoveryResponse> {
        let nonce = self.nonce();
        let Some(node) = self.nodes.get_mut(node) else {
            return Vec::new();
        };
        if wanted == Wanted::Nothing {
            return Vec::new();
        }
        if let Some(at) = node
            .held
            .iter()
            .position(|held| held.type_url == type_url && answers(held, &wanted))
        {
            let mut recorded = vec![node.held.remove(at)];
            // Recorded between LDS and the rest, asked for by the agent and not by the proxy: sent without being asked.
            if type_url == LISTENER {
                recorded.extend(node.held.extract_if(.., |held| held.type_url == NAME_TABLE));
            }
            return recorded;
        }
        let mut gone = Vec::new();
        let resources = match wanted {
            Wanted::Nothing | Wanted::All => {
                let is_gone = |name: &&String| node.snapshot.find(type_url, name).is_none();
                gone.extend(held.iter().filter(is_gone).cloned());
                node.snapshot.all(type_url).to_vec()
            }
            Wanted::Names(names) => names
                .iter()
                .filter_map(|name| node.snapshot.answer(type_url, name))
                .collect(),
        };
        vec![stream::response(type_url, nonce, resources, gone)]
    }

    fn send(&mut self, id: u64, name: &str, response: DeltaDiscoveryResponse) -> bool {
        let (Some(stream), Some(node)) = (self.streams.get(&id), self.nodes.get(name)) else {
            return false;
        };
        let sent = Sent {
            node: name.to_owned(),
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            names: response
                .resources
                .iter()
                .map(|resource| resource.name.clone())
                .collect(),
            is_subscribed: stream.subscriptions.contains_key(&response.type_url),
            at: Instant::now(),
            verdict: None,
        };
        let is_sent = stream.send(&node.snapshot, response);
        if is_sent {
            self.journal.note_sent(sent);
        }
        is_sent
    }
}

/// Whether a recorded answer answers a subscription: the same names.
fn answers(recorded: &DeltaDiscoveryResponse, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Nothing => false,
        Wanted::All => true,
        Wanted::Names(names) => {
            names.len() == recorded.resources.len()
                && recorded
                    .resources
                    .iter()
                    .all(|resource| names.contains(&resource.name))
        }
    }
}

fn apply(snapshot: &mut Snapshot, response: &DeltaDiscoveryResponse) {
    for resource in &response.resources {
        if let Some(any) = &resource.resource {
            snapshot.put(
                &response.type_url,
                Named {
                    name: resource.name.clone(),
                    any: any.clone(),
                },
            );
        }
    }
    for name in &response.removed_resources {
        snapshot.remove(&response.type_url, name);
    }
}

fn node_name(id: &str) -> &str {
    let name = id.split('~').nth(2).unwrap_or(id);
    name.split('.').next().unwrap_or(name)
}
