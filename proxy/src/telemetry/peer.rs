//! Who this proxy is and who its peers are, as Istio's peer metadata tells it. Source: contract §5.
use std::cell::RefCell;
use std::sync::Arc;

use http::HeaderValue;
use outrigger_model::metadata::Struct;
use outrigger_model::node::Node;
use outrigger_model::peer;

use super::recent::Recent;
use super::workload::Workload;

/// The metadata we send; encoded once.
#[derive(Debug)]
pub(crate) struct LocalPeer {
    /// `x-envoy-peer-metadata-id`: the node id.
    pub(crate) id: HeaderValue,
    /// `x-envoy-peer-metadata`: base64 of a deterministically serialised Struct.
    pub(crate) metadata: HeaderValue,
    /// The TCP preface that carries the same.
    pub(crate) tcp_preface: Vec<u8>,
}

/// Our metadata in its variants: filters may ask for additional labels.
#[derive(Debug)]
pub(crate) struct LocalPeers {
    node: Node,
    plain: Arc<LocalPeer>,
}

impl LocalPeers {
    /// What this proxy is one of.
    pub(crate) fn cluster(&self) -> &str {
        &self.node.cluster
    }

    /// Who this proxy is.
    pub(crate) fn node_id(&self) -> &str {
        &self.node.id
    }

    /// Encodes the usual variant.
    pub(crate) fn new(node: Node) -> Self {
        Self {
            plain: Arc::new(LocalPeer::new(&node, &[])),
            node,
        }
    }

    /// With these labels besides the usual ones.
    pub(crate) fn with_labels(&self, additional_labels: &[String]) -> Arc<LocalPeer> {
        if additional_labels.is_empty() {
            return self.plain.clone();
        }
        Arc::new(LocalPeer::new(&self.node, additional_labels))
    }
}

impl LocalPeer {
    fn new(node: &Node, additional_labels: &[String]) -> Self {
        // A node id with a line break cannot stand in a header; base64 always can.
        let value =
            |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            id: value(&node.id),
            metadata: value(&peer::encode_http(node, additional_labels)),
            tcp_preface: peer::encode_tcp(node, additional_labels),
        }
    }
}

/// Who the other side said it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its node id.
    pub(crate) id: String,
    /// Its metadata (`NAME`, `NAMESPACE`, `WORKLOAD_NAME`, `LABELS`, …).
    pub(crate) metadata: Struct,
    /// The same for metrics.
    pub(crate) workload: Workload,
}

/// Peers that a worker remembers. Source: peer_metadata, which keeps 500 by their ids.
const PEERS: usize = 500;

impl Peer {
    /// By what it sent.
    pub(crate) fn new(id: String, metadata: Struct) -> Arc<Self> {
        let workload = Workload::peer(&metadata);
        Arc::new(Self {
            id,
            metadata,
            workload,
        })
    }

    /// By the values of the two headers; `None` if they cannot be read. Decoded once for each peer that this worker saw lately: the
    /// same peer sends the same bytes with every request.
    pub(crate) fn of_headers(id: &HeaderValue, metadata: &HeaderValue) -> Option<Arc<Self>> {
        type Peers = Recent<Box<[u8]>, (HeaderValue, Arc<Peer>)>;
        thread_local! {
            static PEERS: RefCell<Peers> = RefCell::new(Recent::new(self::PEERS));
        }
        let key = id.as_bytes();
        let known = PEERS.with_borrow_mut(|peers| peers.get(key, || key.into()));
        if let Some((sent, peer)) = known
            && sent == metadata
        {
            return Some(peer);
        }
        let fields = peer::decode_http(metadata.to_str().ok()?).ok()?;
        let peer = Self::new(id.to_str().ok()?.to_owned(), fields);
        // A copy: the header itself keeps the buffer that the whole message came in.
        let sent = HeaderValue::from_bytes(metadata.as_bytes()).ok()?;
        PEERS.with_borrow_mut(|peers| peers.insert(key.into(), (sent, peer.clone())));
        Some(peer)
    }
}
