//! Secret discovery over gRPC streams of their own (state of the world), one for each server that configuration names.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::decode::SECRET_TYPE;
use xds_client::{
    Client, Handle, Handler, Method, Node, Protocol, Rejection, Subscriptions, Transport, Update,
};

use super::ads;
use super::control::Control;
use super::secrets::Wanted;
use crate::worker;

/// What Istio's agent and SPIRE serve.
const STREAM_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";

/// Finds the transport for a static cluster by its name.
pub(crate) type TransportOf = Box<dyn Fn(&str) -> Option<Transport>>;

/// The open streams.
pub(crate) struct SecretStreams {
    control: Weak<RefCell<Control>>,
    node: Node,
    transport_of: TransportOf,
    streams: RefCell<BTreeMap<String, Handle>>,
}

impl SecretStreams {
    /// No stream yet.
    pub(crate) fn new(control: &Rc<RefCell<Control>>, node: Node, transport_of: TransportOf) -> Rc<Self> {
        Rc::new(Self {
            control: Rc::downgrade(control),
            node,
            transport_of,
            streams: RefCell::default(),
        })
    }

    /// Subscribes what is wanted; opens streams to servers that are new. The control must not be borrowed.
    pub(crate) fn update(&self, wanted: &Wanted) {
        for (server, names) in wanted {
            let ConfigServer::Grpc(cluster) = server else {
                continue;
            };
            let mut streams = self.streams.borrow_mut();
            if let Some(handle) = streams.get(cluster) {
                // The task never ends while the process lives.
                let _ = handle.set_names(SECRET_TYPE, names.clone());
            } else if let Some(handle) = self.open(cluster, names.clone()) {
                streams.insert(cluster.clone(), handle);
            }
        }
    }

    fn open(&self, cluster: &str, names: std::collections::BTreeSet<String>) -> Option<Handle> {
        let Some(transport) = (self.transport_of)(cluster) else {
            tracing::error!(
                cluster,
                "secrets are to come from a cluster that the bootstrap does not have, or that has no address"
            );
            return None;
        };
        let mut subscriptions = Subscriptions::default();
        subscriptions.set_names(SECRET_TYPE, names);
        let random = || fastrand::u64(..);
        let (client, handle) = Client::new(
            transport,
            Protocol::Sotw(Method::from_static(STREAM_SECRETS)),
            self.node.clone(),
            subscriptions,
            random,
        );
        let handler = SdsHandler {
            control: self.control.clone(),
            server: ConfigServer::Grpc(cluster.to_owned()),
        };
        let client = client.with_backoff(ads::reconnect());
        if let Some(control) = self.control.upgrade() {
            control.borrow_mut().count_connections(cluster, handle.clone());
        }
        worker::spawn(async move {
            client.run(handler).await;
        });
        Some(handle)
    }
}

struct SdsHandler {
    control: Weak<RefCell<Control>>,
    server: ConfigServer,
}

impl Handler for SdsHandler {
    fn on_update(
        &mut self,
        update: Update,
        _subscriptions: &mut Subscriptions,
    ) -> Result<(), Vec<Rejection>> {
        let Some(control) = self.control.upgrade() else {
            return Ok(());
        };
        let mut control = control.borrow_mut();
        let mut rejections = Vec::new();
        for resource in update.added {
            let bytes = Bytes::from(resource.any.value);
            if let Err(reason) = control.offer_secret(&self.server, &resource.name, &update.version, bytes) {
                tracing::warn!(
                    secret = resource.name,
                    reason,
                    "secret rejected; the last good one stays"
                );
                rejections.push(Rejection {
                    resource: resource.name,
                    reason,
                });
            }
        }
        if rejections.is_empty() {
            Ok(())
        } else {
            Err(rejections)
        }
    }
}
