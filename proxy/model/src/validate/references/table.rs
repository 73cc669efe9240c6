//! Fields that hold the name of another resource.
use prost_reflect::DynamicMessage;

use crate::validate::finding::Rule;
use crate::validate::resource::Kind;
use crate::validate::walk::At;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Cluster,
    /// Envoy `Utility::checkApiConfigSourceSubscriptionBackingCluster`: one of the bootstrap.
    StaticCluster,
    Routes,
    Endpoints,
    Secret,
    /// Without a source it must be in the bootstrap.
    StaticSecret,
}

impl Target {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Cluster | Self::StaticCluster => Kind::Cluster,
            Self::Routes => Kind::RouteTable,
            Self::Endpoints => Kind::Endpoints,
            Self::Secret | Self::StaticSecret => Kind::Secret,
        }
    }

    /// What it is called when the name leads nowhere.
    pub(super) fn missing(self) -> Rule {
        match self.kind() {
            Kind::RouteTable => Rule::MissingRoutes,
            Kind::Endpoints => Rule::MissingEndpoints,
            Kind::Secret => Rule::MissingSecret,
            _ => Rule::MissingCluster,
        }
    }

    /// The target where the field stands.
    pub(super) fn in_place(self, message: &DynamicMessage, at: &At<'_>) -> Self {
        match self {
            Self::Cluster if at.is_inside("envoy.config.core.v3.ApiConfigSource") => Self::StaticCluster,
            Self::Secret if !message.has_field_by_name("sds_config") => Self::StaticSecret,
            target => target,
        }
    }
}

/// Message, field (a string or a list of them), meaning.
pub(super) const FIELDS: &[(&str, &str, Target)] = &[
    ("envoy.config.route.v3.RouteAction", "cluster", Target::Cluster),
    (
        "envoy.config.route.v3.RouteAction.RequestMirrorPolicy",
        "cluster",
        Target::Cluster,
    ),
    (
        "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        "name",
        Target::Cluster,
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "cluster",
        Target::Cluster,
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        "name",
        Target::Cluster,
    ),
    (
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.PrefixRoutes.Route",
        "cluster",
        Target::Cluster,
    ),
    (
        "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
        "clusters",
        Target::Cluster,
    ),
    (
        "envoy.config.core.v3.GrpcService.EnvoyGrpc",
        "cluster_name",
        Target::Cluster,
    ),
    ("envoy.config.core.v3.HttpUri", "cluster", Target::Cluster),
    (
        "envoy.config.core.v3.ApiConfigSource",
        "cluster_names",
        Target::StaticCluster,
    ),
    (
        "envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster",
        Target::Cluster,
    ),
    (
        "envoy.config.trace.v3.DatadogConfig",
        "collector_cluster",
        Target::Cluster,
    ),
    (
        "envoy.config.trace.v3.LightstepConfig",
        "collector_cluster",
        Target::Cluster,
    ),
    (
        "envoy.config.metrics.v3.StatsdSink",
        "tcp_cluster_name",
        Target::Cluster,
    ),
    (
        "envoy.config.bootstrap.v3.ClusterManager",
        "local_cluster_name",
        Target::StaticCluster,
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        "route_config_name",
        Target::Routes,
    ),
    (
        "envoy.config.route.v3.ScopedRouteConfiguration",
        "route_configuration_name",
        Target::Routes,
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        "name",
        Target::Secret,
    ),
];
