//! The xDS protocol for anyone who wants configuration from a control plane.
//!
//! The crate knows resources by name, version and bytes ([`Resource`]); what they mean is the business of their owner,
//! who implements [`Handler`] and answers each [`Update`] with accept or reject, resource by resource.
//!
//! | part | what |
//! |---|---|
//! | [`session`] | the protocol as machines without I/O and clock: [`DeltaSession`], [`SotwSession`] |
//! | [`Backoff`] | waits between attempts, without randomness of its own |
//! | [`Transport`] | gRPC over TCP or a Unix socket |
//! | [`Client`] | ties them together in one task that never gives up |
//!
//! ```no_run
//! use xds_client::{Client, Handler, Node, Protocol, Rejection, Subscriptions, Transport, Update};
//!
//! const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
//!
//! struct Owner;
//!
//! impl Handler for Owner {
//!     fn on_update(&mut self, update: Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
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
//! Not done: `xdstp:` collections.

#![forbid(unsafe_code)]

mod address;
mod backoff;
mod client;
mod connect;
mod counters;
mod handler;
mod protocol;
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
pub use envoy_types::pb::google::protobuf::Any;
pub use handler::{ConnectionEvent, Handler, Rejection, Report, Resource, Update};
pub use protocol::{FileSource, Method, Protocol, ReadFile, Rest, RestCodec};
pub use session::Session;
pub use session::delta::DeltaSession;
pub use session::sotw::SotwSession;
pub use subscriptions::{Subscriptions, WILDCARD};
pub use transport::{Transport, TransportError};
pub use watch::FileWatch;
