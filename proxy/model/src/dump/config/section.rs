//! The table of sections and what one element of each looks like, fields by number.
//!
//! Source: envoy/admin/v3/config_dump.proto, config_dump_shared.proto.
use std::collections::BTreeMap;

use super::{DumpResource, DumpState};
use crate::dump::mask::Mask;
use crate::dump::number;
use crate::dump::print::{Place, Printer};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Bootstrap,
    Clusters,
    Filters,
    Endpoints,
    Listeners,
    Routes,
    Secrets,
    /// In sets.
    Scopes,
}

/// One entry of `configs`.
pub(super) struct Section {
    pub(super) shape: Shape,
    /// Name in `envoy.admin.v3`.
    pub(super) message: &'static str,
    pub(super) prints_version: bool,
    pub(super) lists: &'static [List],
    /// Field of an element that holds the resource.
    pub(super) payload: &'static str,
    /// What the bytes of a resource are.
    pub(super) resource_type: &'static str,
}

/// A repeated field of a section.
pub(super) struct List {
    pub(super) kind: ListKind,
    pub(super) field: &'static str,
    /// Name of the element within the section's message.
    pub(super) message: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    Static,
    Active,
    Warming,
    /// Active, warming and refused together.
    Dynamic,
}

const fn list(kind: ListKind, field: &'static str, message: &'static str) -> List {
    List { kind, field, message }
}

/// In Envoy's order.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        shape: Shape::Bootstrap,
        message: "BootstrapConfigDump",
        prints_version: false,
        lists: &[],
        payload: "bootstrap",
        resource_type: "envoy.config.bootstrap.v3.Bootstrap",
    },
    Section {
        shape: Shape::Clusters,
        message: "ClustersConfigDump",
        prints_version: true,
        lists: &[
            list(ListKind::Static, "static_clusters", "StaticCluster"),
            list(ListKind::Active, "dynamic_active_clusters", "DynamicCluster"),
            list(ListKind::Warming, "dynamic_warming_clusters", "DynamicCluster"),
        ],
        payload: "cluster",
        resource_type: "envoy.config.cluster.v3.Cluster",
    },
    Section {
        shape: Shape::Filters,
        message: "EcdsConfigDump",
        prints_version: false,
        lists: &[list(ListKind::Dynamic, "ecds_filters", "EcdsFilterConfig")],
        payload: "ecds_filter",
        resource_type: "envoy.config.core.v3.TypedExtensionConfig",
    },
    Section {
        shape: Shape::Endpoints,
        message: "EndpointsConfigDump",
        prints_version: false,
        lists: &[
            list(
                ListKind::Static,
                "static_endpoint_configs",
                "StaticEndpointConfig",
            ),
            list(
                ListKind::Dynamic,
                "dynamic_endpoint_configs",
                "DynamicEndpointConfig",
            ),
        ],
        payload: "endpoint_config",
        resource_type: "envoy.config.endpoint.v3.ClusterLoadAssignment",
    },
    Section {
        shape: Shape::Listeners,
        message: "ListenersConfigDump",
        prints_version: true,
        lists: &[
            list(ListKind::Static, "static_listeners", "StaticListener"),
            list(ListKind::Dynamic, "dynamic_listeners", "DynamicListener"),
        ],
        payload: "listener",
        resource_type: "envoy.config.listener.v3.Listener",
    },
    Section {
        shape: Shape::Scopes,
        message: "ScopedRoutesConfigDump",
        prints_version: false,
        lists: &[
            list(
                ListKind::Static,
                "inline_scoped_route_configs",
                "InlineScopedRouteConfigs",
            ),
            list(
                ListKind::Dynamic,
                "dynamic_scoped_route_configs",
                "DynamicScopedRouteConfigs",
            ),
        ],
        payload: "scoped_route_configs",
        resource_type: "envoy.config.route.v3.ScopedRouteConfiguration",
    },
    Section {
        shape: Shape::Routes,
        message: "RoutesConfigDump",
        prints_version: false,
        lists: &[
            list(ListKind::Static, "static_route_configs", "StaticRouteConfig"),
            list(ListKind::Dynamic, "dynamic_route_configs", "DynamicRouteConfig"),
        ],
        payload: "route_config",
        resource_type: "envoy.config.route.v3.RouteConfiguration",
    },
    Section {
        shape: Shape::Secrets,
        message: "SecretsConfigDump",
        prints_version: false,
        lists: &[
            list(ListKind::Static, "static_secrets", "StaticSecret"),
            list(ListKind::Active, "dynamic_active_secrets", "DynamicSecret"),
            list(ListKind::Warming, "dynamic_warming_secrets", "DynamicSecret"),
        ],
        payload: "secret",
        resource_type: "envoy.extensions.transport_sockets.tls.v3.Secret",
    },
];

/// What is known about one name, for one list.
#[derive(Default)]
pub(super) struct Element<'r> {
    constant: Option<&'r DumpResource>,
    active: Option<&'r DumpResource>,
    warming: Option<&'r DumpResource>,
    rejected: Option<(&'r DumpResource, &'r str)>,
}

impl<'r> Element<'r> {
    fn add(&mut self, resource: &'r DumpResource) {
        match &resource.state {
            DumpState::Static => self.constant = Some(resource),
            DumpState::Active => self.active = Some(resource),
            DumpState::Warming => self.warming = Some(resource),
            DumpState::Rejected { error } => self.rejected = Some((resource, error)),
        }
    }

    /// The one resource that this element of a list is about; `None`: only a refusal is known.
    fn shown(&self) -> Option<&'r DumpResource> {
        self.constant.or(self.active).or(self.warming)
    }

    fn name(&self) -> &'r str {
        self.shown()
            .or(self.rejected.map(|(resource, _)| resource))
            .map_or("", |resource| resource.name.as_str())
    }
}

impl Section {
    /// Elements in the order of the resources; what concerns one name is one element.
    pub(super) fn elements_of<'r>(
        &self,
        kind: ListKind,
        resources: impl Iterator<Item = &'r DumpResource>,
    ) -> Vec<Element<'r>> {
        let mut position: BTreeMap<&str, usize> = BTreeMap::new();
        let mut elements: Vec<Element<'r>> = Vec::new();
        for resource in resources {
            if (resource.state == DumpState::Static) != (kind == ListKind::Static) {
                continue;
            }
            let place = match kind {
                // Inline route tables may share a name.
                ListKind::Static => elements.len(),
                _ => *position.entry(&resource.name).or_insert(elements.len()),
            };
            if place == elements.len() {
                elements.push(Element::default());
            }
            if let Some(element) = elements.get_mut(place) {
                element.add(resource);
            }
        }
        elements
            .into_iter()
            .filter_map(|element| in_list(kind, element))
            .collect()
    }

    /// Members of one element, into an open object.
    pub(super) fn element(&self, printer: &mut Printer<'_>, element: &Element<'_>, mask: &Mask) {
        if self.shape == Shape::Listeners && element.constant.is_none() {
            return self.dynamic_listener(printer, element, mask);
        }
        if self.shape == Shape::Secrets {
            member(printer, mask, "name", element.name());
        }
        if let Some(resource) = element.shown() {
            // Envoy shows hosts there, which have neither.
            let is_hosts = self.shape == Shape::Endpoints;
            let is_secret = self.shape == Shape::Secrets;
            let is_static = element.constant.is_some();
            if !is_static && !is_hosts {
                member(printer, mask, "version_info", &resource.version);
            }
            // The one message whose date comes before the resource; a secret of the bootstrap has none.
            if is_secret && !is_static {
                date(printer, mask, resource);
            }
            self.payload(printer, self.payload, resource, mask);
            if !is_secret && !is_hosts {
                date(printer, mask, resource);
            }
        }
        self.error_state(printer, element, mask);
    }

    /// Source: config_dump_shared.proto `DynamicListener`: the name, then a message for each state.
    fn dynamic_listener(&self, printer: &mut Printer<'_>, element: &Element<'_>, mask: &Mask) {
        member(printer, mask, "name", element.name());
        for (field, state) in [
            ("active_state", element.active),
            ("warming_state", element.warming),
        ] {
            let (Some(mask), Some(resource)) = (mask.child(field), state) else {
                continue;
            };
            printer.json.key(field);
            printer.json.begin_object();
            member(printer, mask, "version_info", &resource.version);
            self.payload(printer, self.payload, resource, mask);
            date(printer, mask, resource);
            printer.json.end_object();
        }
        self.error_state(printer, element, mask);
    }

    /// Source: config_dump_shared.proto `UpdateFailureState`.
    fn error_state(&self, printer: &mut Printer<'_>, element: &Element<'_>, mask: &Mask) {
        let (Some((resource, error)), Some(mask)) = (element.rejected, mask.child("error_state")) else {
            return;
        };
        printer.json.key("error_state");
        printer.json.begin_object();
        self.payload(printer, "failed_configuration", resource, mask);
        if mask.child("last_update_attempt").is_some() {
            printer
                .json
                .member("last_update_attempt", &number::system_time(resource.last_updated));
        }
        member(printer, mask, "details", error);
        member(printer, mask, "version_info", &resource.version);
        printer.json.end_object();
    }

    fn payload(&self, printer: &mut Printer<'_>, field: &str, resource: &DumpResource, mask: &Mask) {
        if let Some(mask) = mask.child(field) {
            let type_url = format!("type.googleapis.com/{}", self.resource_type);
            printer.json.key(field);
            printer.any(&type_url, &resource.bytes, Place { mask, ..Place::TOP });
        }
    }
}

/// The part of the element that belongs into the list.
fn in_list(kind: ListKind, element: Element<'_>) -> Option<Element<'_>> {
    match kind {
        ListKind::Static | ListKind::Dynamic => Some(element),
        ListKind::Active => element.active.is_some().then_some(Element {
            warming: None,
            ..element
        }),
        // A refusal without a good version before it has no other place to be seen.
        ListKind::Warming if element.active.is_some() => element.warming.is_some().then_some(Element {
            active: None,
            rejected: None,
            ..element
        }),
        ListKind::Warming => Some(element),
    }
}

/// An empty text is a default, and left out.
fn member(printer: &mut Printer<'_>, mask: &Mask, name: &str, value: &str) {
    if !value.is_empty() && mask.child(name).is_some() {
        printer.json.member(name, value);
    }
}

fn date(printer: &mut Printer<'_>, mask: &Mask, resource: &DumpResource) {
    if mask.child("last_updated").is_some() {
        printer
            .json
            .member("last_updated", &number::system_time(resource.last_updated));
    }
}
