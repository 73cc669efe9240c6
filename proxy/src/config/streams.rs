//! The clients of every server of configuration: one for ADS, one for each other server and type.
//!
//! Knows where a type is asked for; what to ask for are [`Control::wishes`], and what answers mean is [`Control::apply`]. Envoy opens
//! a stream for each subscription of a server of its own; here those of one type share one.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::bootstrap::{AdsConfig, AdsMode, ConfigServer, GrpcServer};
use outrigger_model::decode::{
    CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, NAME_TABLE_TYPE, PROXY_CONFIG_TYPE,
    ROUTE_TABLE_TYPE, SCOPE_TYPE, SECRET_TYPE, VIRTUAL_HOST_TYPE,
};
use outrigger_model::document::{read_response, request_to_json, response_from_json};
use xds_client::{
    Any, Backoff, Client, ConnectionEvent, DiscoveryRequest, DiscoveryResponse, FileSource, Handle, Handler,
    Method, Node, Protocol, Rejection, Rest, RestCodec, Subscriptions, Transport, Update, first_string_field,
};

use super::control::Control;
use super::names;
use super::proxy_config;
use crate::stats::{Gauge, Registry};
use crate::worker;

/// First and longest wait between attempts to reach the control plane, each drawn with full jitter. Envoy goes up to 30 s; a control
/// plane that comes back with a change has to be heard within 2 s (see docs/adr/0007-reconnect.md).
const RECONNECT_BASE: Duration = Duration::from_millis(200);
const RECONNECT_CAP: Duration = Duration::from_millis(1500);

/// A control plane that has not answered by then counts as one that is down.
const SILENCE: Duration = Duration::from_secs(5);

/// Time limits and files change what is wanted, and not only answers do.
const UPKEEP: Duration = Duration::from_secs(1);

/// Files are looked at this often, as those of secrets.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// Finds the transport for a static cluster by its name, and whether HTTP/2 is spoken to it.
pub(crate) type TransportOf = Box<dyn Fn(&str) -> Option<(Transport, bool)>>;

/// What the command line says of control planes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    /// A bearer token for the ADS server, read for each stream, so that whoever rotates it needs to tell nobody.
    pub(crate) token_file: Option<PathBuf>,
    /// A state-of-the-world answer without any cluster or listener takes none away.
    pub(crate) keeps_last_set: bool,
    /// The environment's `PROXY_CONFIG_XDS_AGENT`: the proxy's own configuration is asked for.
    pub(crate) asks_proxy_config: bool,
}

/// All clients; control thread only.
pub(crate) struct Streams {
    control: Weak<RefCell<Control>>,
    node: Node,
    transport_of: TransportOf,
    options: StreamOptions,
    ads: RefCell<Option<Handle>>,
    own: RefCell<BTreeMap<(ConfigServer, &'static str), Own>>,
    /// Of the wishes that were carried out last.
    revision: Cell<Option<u64>>,
    connected: Gauge,
}

/// A client for one server and type.
struct Own {
    /// `None`: it cannot be asked, which was told.
    handle: Option<Handle>,
    names: BTreeSet<String>,
}

impl Streams {
    /// Opens whatever is wanted now. What comes back is the ADS stream's, for who has something to report on it.
    pub(crate) fn start(
        control: &Rc<RefCell<Control>>,
        node: Node,
        ads: Option<&AdsConfig>,
        transport_of: TransportOf,
        options: StreamOptions,
        registry: &Registry,
    ) -> Option<Handle> {
        let streams = Rc::new(Self {
            control: Rc::downgrade(control),
            node,
            transport_of,
            options,
            ads: RefCell::default(),
            own: RefCell::default(),
            revision: Cell::new(None),
            connected: registry.gauge("control_plane.connected_state"),
        });
        if ads.is_some() && streams.options.asks_proxy_config {
            control.borrow_mut().ask_proxy_config();
        }
        match ads {
            Some(ads) => {
                let mut first = Subscriptions::default();
                streams.update(Some(&mut first));
                streams.open_ads(ads, first);
            }
            None => streams.update(None),
        }
        let ads = streams.ads.borrow().clone();
        worker::spawn(async move {
            for elapsed in 1_u64.. {
                tokio::time::sleep(UPKEEP).await;
                if UPKEEP.as_secs() * elapsed == SILENCE.as_secs() {
                    streams.restore();
                }
                streams.update(None);
            }
        });
        ads
    }

    fn open_ads(self: &Rc<Self>, config: &AdsConfig, subscriptions: Subscriptions) {
        let Some(mut transport) = self.grpc(&config.server) else {
            return;
        };
        if let Some(path) = &self.options.token_file {
            transport = transport.with_bearer_token_file(path.clone());
        }
        let protocol = match config.mode {
            AdsMode::Delta => Protocol::delta_ads(),
            AdsMode::Sotw => Protocol::sotw_ads(),
        };
        let (client, handle) = Client::new(transport, protocol, self.node.clone(), subscriptions, random);
        *self.ads.borrow_mut() = Some(handle.clone());
        self.count(&config.server.cluster, handle, true);
        self.run(client, ConfigServer::Ads);
    }

    /// Subscribes what is wanted; opens clients of servers that are new. `ads` are the subscriptions of the ADS stream while it is in
    /// the hands of the caller. The control must not be borrowed.
    fn update(self: &Rc<Self>, mut ads: Option<&mut Subscriptions>) {
        let Some(control) = self.control.upgrade() else {
            return;
        };
        let revision = control.borrow().wishes().revision();
        if self.revision.replace(Some(revision)) == Some(revision) {
            return;
        }
        let wishes = control.borrow().wishes().clone();
        for (server, type_url, names) in wishes.iter() {
            match (server, &mut ads) {
                (ConfigServer::Ads, Some(subscriptions)) => subscriptions.set_names(type_url, names.clone()),
                (ConfigServer::Ads, None) => self.ask_ads(type_url, names),
                _ => self.ask(server, type_url, names),
            }
        }
    }

    fn ask_ads(&self, type_url: &str, names: &BTreeSet<String>) {
        match &*self.ads.borrow() {
            // The task never ends while the process lives.
            Some(ads) => drop(ads.set_names(type_url, names.clone())),
            None if names.is_empty() => {}
            None => tracing::error!(
                type_url,
                ?names,
                "configuration is to come over ads, but dynamic_resources has no ads_config"
            ),
        }
    }

    /// Nobody answers: what is on disk may be better than nothing.
    fn restore(self: &Rc<Self>) {
        let Some(control) = self.control.upgrade() else {
            return;
        };
        let is_restored = control.borrow_mut().restore();
        if is_restored {
            self.update(None);
            self.hold_restored(&control.borrow());
        }
    }

    /// The control planes say what is gone of what they are told of. Endpoints and routes are asked for by name.
    fn hold_restored(&self, control: &Control) {
        for (server, type_url, _) in control.wishes().iter() {
            let names = control.restored_names(type_url);
            let own = self.own.borrow();
            let ads = self.ads.borrow();
            let handle = match server {
                ConfigServer::Ads => ads.as_ref(),
                _ => own
                    .get(&(server.clone(), type_url))
                    .and_then(|own| own.handle.as_ref()),
            };
            if let Some(handle) = handle.filter(|_| !names.is_empty()) {
                // The task never ends while the process lives.
                let _ = handle.hold(type_url, names);
            }
        }
    }

    fn ask(self: &Rc<Self>, server: &ConfigServer, type_url: &'static str, names: &BTreeSet<String>) {
        let key = (server.clone(), type_url);
        if let Some(own) = self.own.borrow_mut().get_mut(&key) {
            if let Some(handle) = own.handle.as_ref().filter(|_| own.names != *names) {
                let _ = handle.set_names(type_url, names.clone());
                own.names.clone_from(names);
            }
            return;
        }
        let own = Own {
            handle: self.open(server, type_url, names.clone()),
            names: names.clone(),
        };
        self.own.borrow_mut().insert(key, own);
    }

    fn open(
        self: &Rc<Self>,
        server: &ConfigServer,
        type_url: &'static str,
        names: BTreeSet<String>,
    ) -> Option<Handle> {
        let service = Service::of(type_url)?;
        let mut subscriptions = Subscriptions::default();
        subscriptions.set_names(type_url, names);
        let (cluster, protocol, transport) = match server {
            ConfigServer::Ads => return None,
            ConfigServer::Grpc(server) => {
                let protocol = Protocol::Sotw(Method::from_static(service.sotw));
                (&server.cluster, protocol, self.grpc(server)?)
            }
            ConfigServer::DeltaGrpc(server) => {
                let protocol = Protocol::Delta(Method::from_static(service.delta));
                (&server.cluster, protocol, self.grpc(server)?)
            }
            ConfigServer::Rest(rest) => {
                let (transport, is_http2) = self.transport(&rest.cluster)?;
                let protocol = Protocol::Rest(Rest {
                    path: service.rest.to_owned(),
                    host: rest.cluster.clone(),
                    is_http2,
                    refresh_delay: rest.refresh_delay,
                    request_timeout: rest.request_timeout,
                    codec: Arc::new(Json),
                });
                (&rest.cluster, protocol, transport)
            }
            ConfigServer::Path(path) => {
                let source = FileSource {
                    path: path.clone(),
                    interval: FILE_INTERVAL,
                    read: Box::new(|path| read_response(path).map_err(|error| error.to_string())),
                };
                let (client, handle) = Client::of_file(source, subscriptions);
                self.run(client, server.clone());
                return Some(handle);
            }
        };
        let is_http2 = match &protocol {
            Protocol::Rest(rest) => rest.is_http2,
            Protocol::Sotw(_) | Protocol::Delta(_) => true,
        };
        let (client, handle) = Client::new(transport, protocol, self.node.clone(), subscriptions, random);
        self.count(cluster, handle.clone(), is_http2);
        self.run(client, server.clone());
        Some(handle)
    }

    fn grpc(&self, server: &GrpcServer) -> Option<Transport> {
        let (transport, _) = self.transport(&server.cluster)?;
        let mut headers = server.metadata.iter();
        headers
            .try_fold(transport, |transport, (name, value)| {
                transport.with_metadata(name, value)
            })
            .inspect_err(|error| tracing::error!(cluster = server.cluster, %error, "cannot be asked"))
            .ok()
    }

    fn transport(&self, cluster: &str) -> Option<(Transport, bool)> {
        let transport = (self.transport_of)(cluster);
        if transport.is_none() {
            tracing::error!(
                cluster,
                "configuration is to come from a cluster that the bootstrap does not have, or that has no address"
            );
        }
        transport
    }

    fn count(&self, cluster: &str, handle: Handle, is_http2: bool) {
        if let Some(control) = self.control.upgrade() {
            control.borrow_mut().count_connections(cluster, handle, is_http2);
        }
    }

    fn run(self: &Rc<Self>, client: Client, server: ConfigServer) {
        let client = client
            .with_backoff(Backoff::new(RECONNECT_BASE, RECONNECT_CAP))
            .with_keep_last_set(self.options.keeps_last_set);
        let handler = ServerHandler {
            streams: self.clone(),
            server,
        };
        worker::spawn(async move {
            client.run(handler).await;
        });
    }
}

fn random() -> u64 {
    fastrand::u64(..)
}

/// Where one type is asked for. Source: envoy/service/*/v3/*.proto, with the paths of their HTTP annotations.
struct Service {
    sotw: &'static str,
    delta: &'static str,
    rest: &'static str,
}

impl Service {
    fn of(type_url: &str) -> Option<&'static Self> {
        macro_rules! service {
            ($package:literal, $name:literal, $plural:literal, $path:literal) => {
                Some(&Service {
                    sotw: concat!(
                        "/envoy.service.",
                        $package,
                        ".v3.",
                        $name,
                        "DiscoveryService/Stream",
                        $plural
                    ),
                    delta: concat!(
                        "/envoy.service.",
                        $package,
                        ".v3.",
                        $name,
                        "DiscoveryService/Delta",
                        $plural
                    ),
                    rest: concat!("/v3/discovery:", $path),
                })
            };
        }
        match type_url {
            CLUSTER_TYPE => service!("cluster", "Cluster", "Clusters", "clusters"),
            LOAD_ASSIGNMENT_TYPE => service!("endpoint", "Endpoint", "Endpoints", "endpoints"),
            LISTENER_TYPE => service!("listener", "Listener", "Listeners", "listeners"),
            ROUTE_TABLE_TYPE => service!("route", "Route", "Routes", "routes"),
            SCOPE_TYPE => service!("route", "ScopedRoutes", "ScopedRoutes", "scoped-routes"),
            VIRTUAL_HOST_TYPE => service!("route", "VirtualHost", "VirtualHosts", "virtual-hosts"),
            EXTENSION_TYPE => {
                service!(
                    "extension",
                    "ExtensionConfig",
                    "ExtensionConfigs",
                    "extension_configs"
                )
            }
            SECRET_TYPE => service!("secret", "Secret", "Secrets", "secrets"),
            _ => None,
        }
    }
}

/// Bodies as Envoy writes and reads them.
struct Json;

impl RestCodec for Json {
    fn encode(&self, request: &DiscoveryRequest) -> Result<String, String> {
        request_to_json(request).map_err(|error| error.to_string())
    }

    fn decode(&self, body: &[u8]) -> Result<DiscoveryResponse, String> {
        response_from_json(body).map_err(|error| error.to_string())
    }
}

/// Hands responses of one server to [`Control`].
struct ServerHandler {
    streams: Rc<Streams>,
    server: ConfigServer,
}

impl Handler for ServerHandler {
    fn on_update(
        &mut self,
        update: &Update,
        subscriptions: &mut Subscriptions,
    ) -> Result<(), Vec<Rejection>> {
        let Some(control) = self.streams.control.upgrade() else {
            return Ok(());
        };
        let result = control.borrow_mut().apply(&self.server, update);
        let is_ads = self.server == ConfigServer::Ads;
        self.streams.update(is_ads.then_some(subscriptions));
        result
    }

    fn resource_name(&self, any: &Any) -> Option<String> {
        if any.type_url == NAME_TABLE_TYPE {
            return Some(names::NAME.to_owned());
        }
        if any.type_url == PROXY_CONFIG_TYPE {
            return Some(proxy_config::NAME.to_owned());
        }
        first_string_field(any)
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        let is_ads = self.server == ConfigServer::Ads;
        match event {
            ConnectionEvent::Connected if is_ads => self.streams.connected.set(1),
            ConnectionEvent::Disconnected { .. } => {
                if is_ads {
                    self.streams.connected.set(0);
                }
                if let Some(control) = self.streams.control.upgrade() {
                    control.borrow_mut().unreachable(&self.server);
                }
                self.streams.restore();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_asked_for_where_envoy_asks() {
        let check = |type_url: &str, sotw: &str, delta: &str, rest: &str| {
            let service = Service::of(type_url).expect("a type of its own");
            assert_eq!((service.sotw, service.delta, service.rest), (sotw, delta, rest));
        };
        check(
            CLUSTER_TYPE,
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
            "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
            "/v3/discovery:clusters",
        );
        check(
            EXTENSION_TYPE,
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs",
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs",
            "/v3/discovery:extension_configs",
        );
        check(
            SECRET_TYPE,
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            "/v3/discovery:secrets",
        );
    }
}
