//! The resources in the messages of all files: bootstraps with what is static in them, and everything that xDS carries.
use std::collections::{BTreeSet, HashMap};

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::finding::{Findings, Rule, join};
use super::walk::{self, At, Go, text};
use crate::dump::Descriptors;

/// What can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `envoy.config.bootstrap.v3.Bootstrap`, without its static resources.
    Bootstrap,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`; one inside a listener is part of the listener.
    RouteTable,
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`; one inside a cluster is part of the cluster.
    Endpoints,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
    /// `envoy.config.route.v3.ScopedRouteConfiguration`; one inside a listener is part of the listener.
    Scope,
    /// `envoy.config.route.v3.VirtualHost`, by itself.
    VirtualHost,
    /// `envoy.config.core.v3.TypedExtensionConfig`, by itself: an HTTP filter.
    Filter,
    /// `istio.networking.nds.v1.NameTable`.
    NameTable,
    /// `istio.mesh.v1alpha1.ProxyConfig`.
    ProxyConfig,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Bootstrap,
        Self::Listener,
        Self::RouteTable,
        Self::Cluster,
        Self::Endpoints,
        Self::Secret,
        Self::Scope,
        Self::VirtualHost,
        Self::Filter,
        Self::NameTable,
        Self::ProxyConfig,
    ];

    fn of(full_name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.row().0 == full_name)
    }

    /// As people call one.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// A bootstrap has messages of its type that are no resources.
    fn is_also_a_part(self) -> bool {
        self == Self::Filter
    }

    /// Full name, what people call it, the field with the name, the section of a config dump that shows that all of them are known.
    fn row(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Bootstrap => ("envoy.config.bootstrap.v3.Bootstrap", "bootstrap", "", ""),
            Self::Listener => (
                "envoy.config.listener.v3.Listener",
                "listener",
                "name",
                "envoy.admin.v3.ListenersConfigDump",
            ),
            Self::RouteTable => (
                "envoy.config.route.v3.RouteConfiguration",
                "route configuration",
                "name",
                "envoy.admin.v3.RoutesConfigDump",
            ),
            Self::Cluster => (
                "envoy.config.cluster.v3.Cluster",
                "cluster",
                "name",
                "envoy.admin.v3.ClustersConfigDump",
            ),
            Self::Endpoints => (
                "envoy.config.endpoint.v3.ClusterLoadAssignment",
                "load assignment",
                "cluster_name",
                "envoy.admin.v3.EndpointsConfigDump",
            ),
            Self::Secret => (
                "envoy.extensions.transport_sockets.tls.v3.Secret",
                "secret",
                "name",
                "",
            ),
            Self::Scope => (
                "envoy.config.route.v3.ScopedRouteConfiguration",
                "scoped route configuration",
                "name",
                "envoy.admin.v3.ScopedRoutesConfigDump",
            ),
            Self::VirtualHost => ("envoy.config.route.v3.VirtualHost", "virtual host", "name", ""),
            Self::Filter => (
                "envoy.config.core.v3.TypedExtensionConfig",
                "http filter",
                "name",
                "envoy.admin.v3.EcdsConfigDump",
            ),
            Self::NameTable => ("istio.networking.nds.v1.NameTable", "name table", "", ""),
            Self::ProxyConfig => ("istio.mesh.v1alpha1.ProxyConfig", "proxy configuration", "", ""),
        }
    }
}

/// Elements of a config dump that show what is in the bootstrap.
const STATIC: [&str; 3] = [
    "envoy.admin.v3.ClustersConfigDump.StaticCluster",
    "envoy.admin.v3.ListenersConfigDump.StaticListener",
    "envoy.admin.v3.SecretsConfigDump.StaticSecret",
];

/// Where a bootstrap holds resources of their own.
pub(super) const STATIC_RESOURCES: &str = "static_resources";

/// One resource of one file.
pub(super) struct Resource {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) file: usize,
    /// From the top of the file.
    pub(super) path: String,
    pub(super) message: DynamicMessage,
    /// It stands in a bootstrap.
    pub(super) is_static: bool,
    /// Which response, dump or document it is from: names are unique in one.
    pub(super) group: usize,
    /// A config dump shows several states of one name.
    pub(super) is_dumped: bool,
    /// A later message of a stream has replaced or removed it.
    pub(super) is_superseded: bool,
    /// Something in it could not be read.
    pub(super) tainted: bool,
}

impl Resource {
    /// `cluster "a"`; without a name, `cluster`.
    pub(super) fn label(&self) -> String {
        match self.kind {
            kind if self.name.is_empty() => kind.name().to_owned(),
            kind => format!("{} {:?}", kind.name(), self.name),
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) all: Vec<Resource>,
    groups: usize,
    /// Kinds of which everything that the control plane sends is in the files.
    complete: BTreeSet<Kind>,
}

impl Resources {
    /// Those that are in force when everything has been received.
    pub(super) fn current(&self) -> impl Iterator<Item = &Resource> {
        self.all.iter().filter(|resource| !resource.is_superseded)
    }

    /// As [`Self::current`], of one kind.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.current().filter(move |resource| resource.kind == kind)
    }

    /// Everything of the kind is in the files: what is not there does not exist.
    pub(super) fn is_complete(&self, kind: Kind) -> bool {
        let field = match kind {
            Kind::Cluster => "cds_config",
            Kind::Listener => "lds_config",
            _ => return self.complete.contains(&kind),
        };
        let is_static = |bootstrap: &Resource| {
            let dynamic = bootstrap.message.get_field_by_name("dynamic_resources");
            let dynamic = dynamic.as_deref().and_then(Value::as_message);
            dynamic.is_none_or(|dynamic| !dynamic.has_field_by_name(field))
        };
        self.complete.contains(&kind) || self.of(Kind::Bootstrap).any(is_static)
    }

    pub(super) fn counts(&self) -> Vec<(Kind, usize)> {
        let count = |kind| (kind, self.of(kind).count());
        Kind::ALL
            .into_iter()
            .map(count)
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Takes the resources out of the messages of one file.
    pub(super) fn add(
        &mut self,
        descriptors: &Descriptors,
        file: usize,
        messages: &[(String, DynamicMessage)],
        findings: &mut Findings,
    ) {
        let first = self.all.len();
        for (path, message) in messages {
            self.groups += 1;
            walk::walk(descriptors, message, &mut |message, at| {
                self.visit(file, path, message, at, findings)
            });
            self.remove(first, &removed(message));
        }
        if messages.len() > 1 {
            self.supersede(first);
        }
        if first == self.all.len() && !findings.has_of_file(file) {
            findings.add_to_file(Rule::NotChecked, file, "", "the file holds no resource");
        }
    }

    fn visit(
        &mut self,
        file: usize,
        path: &str,
        message: &DynamicMessage,
        at: &At<'_>,
        findings: &mut Findings,
    ) -> Go {
        let descriptor = message.descriptor();
        let full_name = descriptor.full_name();
        let path = join(path, at.path);
        let is_part =
            |kind: &Kind| kind.is_also_a_part() && at.is_inside("envoy.config.bootstrap.v3.Bootstrap");
        if let Some(kind) = Kind::of(full_name).filter(|kind| !is_part(kind)) {
            let is_static = at.is_inside("envoy.config.bootstrap.v3.Bootstrap")
                || at.around.iter().any(|name| STATIC.contains(&name.as_str()));
            let is_dumped = at.is_inside("envoy.admin.v3.ConfigDump");
            if kind != Kind::Bootstrap && !is_static {
                self.complete.insert(kind);
            }
            self.all.push(Resource {
                kind,
                name: text(message, kind.row().2),
                file,
                path,
                message: message.clone(),
                is_static,
                group: self.groups,
                is_dumped,
                is_superseded: false,
                // A dump names secrets that have not come yet.
                tainted: is_dumped && kind == Kind::Secret && message.fields().count() <= 1,
            });
            return if kind == Kind::Bootstrap {
                Go::Inside
            } else {
                Go::Past
            };
        }
        if self.is_shown_elsewhere(full_name, file) {
            return Go::Past;
        }
        self.learn(message, full_name);
        let is_resource = at.from_any || full_name == "google.protobuf.Any";
        let is_container =
            full_name.starts_with("envoy.admin.v3.") || full_name.starts_with("envoy.service.discovery.v3.");
        if is_resource && !is_container && !at.is_inside("envoy.config.bootstrap.v3.Bootstrap") {
            let name = match full_name {
                "google.protobuf.Any" => text(message, "type_url"),
                name => name.to_owned(),
            };
            let reason = format!("resources of type `{name}` are not checked, and have no effect here");
            findings.add_to_file(Rule::Unknown, file, &path, reason);
            return Go::Past;
        }
        Go::Inside
    }

    /// Parts of a config dump that hold nothing of their own: what was refused is not in force, inline route tables are in their
    /// listeners, and what is static is in the bootstrap, if the dump has that.
    fn is_shown_elsewhere(&self, full_name: &str, file: usize) -> bool {
        match full_name {
            "envoy.admin.v3.UpdateFailureState"
            | "envoy.admin.v3.RoutesConfigDump.StaticRouteConfig"
            | "envoy.admin.v3.ScopedRoutesConfigDump.InlineScopedRouteConfigs" => true,
            name if STATIC.contains(&name) => {
                let mut bootstraps = self.of(Kind::Bootstrap);
                bootstraps.any(|bootstrap| bootstrap.is_dumped && bootstrap.file == file)
            }
            _ => false,
        }
    }

    /// What a container says of the kinds that it holds all of, even if that is none.
    fn learn(&mut self, message: &DynamicMessage, full_name: &str) {
        if full_name.starts_with("envoy.service.discovery.v3.") {
            let type_url = text(message, "type_url");
            self.complete
                .extend(Kind::of(type_url.rsplit('/').next().unwrap_or_default()));
        }
        let section = |kind: &Kind| kind.row().3 == full_name;
        self.complete.extend(Kind::ALL.iter().find(|kind| section(kind)));
    }

    /// Resources since `first` that a delta response takes back.
    fn remove(&mut self, first: usize, (kind, names): &(Option<Kind>, Vec<String>)) {
        for resource in self.all.iter_mut().skip(first) {
            if Some(resource.kind) == *kind && names.contains(&resource.name) {
                resource.is_superseded = true;
            }
        }
    }

    /// Of the resources since `first` that have one name, the last counts.
    fn supersede(&mut self, first: usize) {
        let mut last: HashMap<(Kind, String), usize> = HashMap::new();
        for index in first..self.all.len() {
            let Some(resource) = self.all.get(index) else {
                continue;
            };
            let (key, group) = ((resource.kind, resource.name.clone()), resource.group);
            let before = last.insert(key, index);
            if let Some(before) = before.and_then(|before| self.all.get_mut(before)) {
                before.is_superseded |= before.group != group;
            }
        }
    }
}

/// What a delta response removes.
fn removed(message: &DynamicMessage) -> (Option<Kind>, Vec<String>) {
    let type_url = text(message, "type_url");
    let kind = Kind::of(type_url.rsplit('/').next().unwrap_or_default());
    let value = message.get_field_by_name("removed_resources");
    let names = value.as_deref().and_then(Value::as_list).unwrap_or_default();
    let names = names.iter().filter_map(Value::as_str).map(str::to_owned);
    (kind, names.collect())
}
