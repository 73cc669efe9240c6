//! The xDS protocol for anyone who wants configuration from a control plane.
//!
//! The crate knows resources by name, version and bytes ([`Resource`]); what they mean is the business of their owner,
//! who implements [`Handler`] and answers each [`Update`] with accept or reject, resource by resource.
//!
//! | part | what |
//! |---|---|
//! | [`session`] | the protocol as machines without I/O and clock: [`DeltaSession`], [`SotwSession`] |
//! | [`Protocol`] | how to ask: ADS or the service of one type, increments or state of the world, REST polls; [`FileSource`] |
//! | [`Transport`] | whom to ask: gRPC or HTTP over TCP, a Unix socket, or what your [`Connect`] makes (TLS) |
//! | [`Client`], [`Handle`] | one task that never gives up; changes of subscriptions and counters from outside |
//! | [`Backoff`], [`FileWatch`] | waits without randomness of their own; files that change behind links |
//!
//! # What it takes care of
//!
//! - **Answers.** Each response is answered once: ACK, or NACK with every rejected resource and its reason, bounded in length. A
//!   control plane that sends what was refused again at once makes no loop: the second refusal in a row waits.
//! - **Subscriptions.** By name or wildcard, changed at any time, from the handler (clusters lead to endpoints) or from a [`Handle`].
//!   A name that is dropped and wanted again is requested anew. What nobody asked for is dropped and counted.
//! - **Removals.** In increments only what the control plane names is gone. In the state of the world what a wildcard response
//!   leaves out is gone, and what a response by name leaves out is not. An empty set is applied, and counted, unless
//!   [`Client::with_keep_last_set`] says otherwise.
//! - **Streams that end.** The next one says the node, what is held and what is wanted; nonces of the last one are forgotten. Waits
//!   between attempts grow, with full jitter.
//! - **Time to live.** Resources that have one are removed when it is over, connected or not, and heartbeats prolong it.
//! - **Bytes.** A response is not copied: resources are parts of what came. An owner that keeps one copies it.
//! - **Bounds.** Nothing is read while too many answers wait; a response is at most as large as
//!   [`Transport::with_max_message_bytes`] says.
//!
//! # What it leaves to its owner
//!
//! What a resource means, which resources follow from which, what to do until they are there, and whether a resource that comes a
//! second time is the same: the bytes are handed over each time.
//!
//! # A client
//!
//! ```no_run
//! use xds_client::{Client, Handler, Node, Protocol, Rejection, Subscriptions, Transport, Update};
//!
//! const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
//!
//! struct Owner;
//!
//! impl Handler for Owner {
//!     fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
//!         let bad = update.added.iter().filter(|r| r.any.value.is_empty());
//!         let rejections: Vec<_> =
//!             bad.map(|r| Rejection { resource: r.name.clone(), reason: "empty".into() }).collect();
//!         if rejections.is_empty() { Ok(()) } else { Err(rejections) }
//!     }
//! }
//!
//! # async fn example() -> Result<(), xds_client::TransportError> {
//! let transport = Transport::new("istiod.istio-system.svc:15010".parse()?)?;
//! let node = Node { id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".into(), ..Node::default() };
//! let mut wishes = Subscriptions::default();
//! wishes.wildcard(CLUSTER);
//! let (client, handle) = Client::new(transport, Protocol::delta_ads(), node, wishes, || 4);
//! // From anywhere, at any time:
//! handle.set_names("type.googleapis.com/envoy.config.route.v3.RouteConfiguration", ["8080".to_owned()].into());
//! client.run(Owner).await;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/watch.rs` is a program to run: it prints what a control plane sends.
//!
//! # A session of your own
//!
//! Who has another transport, or a test, drives the machine itself:
//!
//! ```
//! # use xds_client::{DeltaSession, Node, Session as _, Subscriptions};
//! let mut wishes = Subscriptions::default();
//! wishes.wildcard("type.googleapis.com/envoy.config.cluster.v3.Cluster");
//! let mut session = DeltaSession::new(Node::default(), wishes);
//! session.stream_opened();
//! let request = session.next_request().expect("clusters are wanted");
//! assert!(request.node.is_some(), "the first message says who asks");
//! assert!(session.next_request().is_none(), "until something is answered or wanted");
//! ```
//!
//! Not done: `xdstp:` collections.

#![forbid(unsafe_code)]

mod address;
mod backoff;
mod client;
mod connect;
mod counters;
mod handler;
mod protocol;
mod response;
pub mod session;
mod subscriptions;
mod token;
mod transport;
mod watch;

pub use address::Address;
pub use backoff::Backoff;
pub use client::{Client, ClientGone, Handle};
pub use connect::{Connect, Connecting, Connection, Plain};
pub use counters::Counters;
pub use envoy_types::pb::envoy::config::core::v3::Node;
pub use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
pub use handler::{
    ConnectionEvent, Handler, Rejection, Report, ReportedError, Resource, Update, first_string_field,
};
pub use protocol::{FileSource, Method, Protocol, ReadFile, Rest, RestCodec};
pub use response::{Any, DeltaResource, DeltaResponse, Name, SotwResponse};
pub use session::Session;
pub use session::delta::DeltaSession;
pub use session::sotw::SotwSession;
pub use subscriptions::{Subscriptions, WILDCARD};
pub use transport::{Transport, TransportError};
pub use watch::FileWatch;
