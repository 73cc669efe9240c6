//! Protobuf to [`Bootstrap`].
use std::collections::HashSet;
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::bootstrap::v3::{self as pb, bootstrap, runtime_layer::LayerSpecifier};
use envoy_types::pb::envoy::config::core::v3 as core;

use super::stats::Stats;
use super::{AdsConfig, Bootstrap, ConfigServer, ConfigSource, ConnectionLimits};
use crate::access_log::{AccessLog, Logger};
use crate::address::{Address, Names};
use crate::cluster::{Cluster, ClusterName};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::listener::Listener;
use crate::node::Node;
use crate::secret::Secret;
use crate::socket::SocketOption;

impl Bootstrap {
    /// Converts a whole bootstrap.
    ///
    /// # Errors
    /// A value is invalid, or a field is set whose absence would admit more than was asked for.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Bootstrap) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Bootstrap {
            supported { node, static_resources, dynamic_resources, stats_config, admin }
            partly {
                cluster_manager: "its fields are listed below",
                overload_manager: "the limit of downstream connections; its fields are listed below",
                layered_runtime: "limits of downstream connections; each other key that is set is listed as without effect",
            }
            inert {
                stats_flush_interval: "without a stats sink nothing is flushed",
                stats_flush: "without a stats sink nothing is flushed",
                grpc_async_client_manager_config: "caches objects of Envoy that do not exist here",
                memory_allocator_manager: "tunes Envoy's allocator",
                enable_worker_cpu_affinity: "which CPU a worker runs on is invisible from outside",
                inline_headers: "tunes Envoy's header map",
                perf_tracing_file_path: "is for a build of Envoy with tracing of itself",
            }
            unsupported {
                stats_sinks: "telemetry", tracing: "telemetry",
                stats_server_version_override: "telemetry", use_tcp_for_dns_lookups: "traffic",
                dns_resolution_config: "traffic", typed_dns_resolver_config: "traffic",
                application_log_config: "telemetry", stats_eviction: "telemetry",
            }
            never {
                node_context_params: "parameters of xdstp names, which Istio does not use",
                hds_config: "health discovery, which istiod does not serve",
                flags_path: "there is no runtime whose flags could be in files",
                deferred_stat_options: "clusters that nobody uses have no stats anyway",
                watchdog: "no thread is killed for being slow; a process that hangs is for the kubelet",
                watchdogs: "no thread is killed for being slow; a process that hangs is for the kubelet",
                enable_dispatcher_stats: "the event loops that it measures do not exist here",
                header_prefix: "Istio and its tools know these headers by their usual names",
                bootstrap_extensions: "extensions of the process; the one that Istio has, internal_listener, serves HBONE, which sidecars leave off",
                fatal_actions: "they run when Envoy crashes",
                config_sources: "for xdstp names, which Istio does not use",
                default_config_source: "for xdstp names, which Istio does not use",
                default_socket_interface: "there is one",
                certificate_provider_instances: "for extensions that Istio does not use",
                default_regex_engine: "there is one, and its language is RE2",
                xds_delegate_extension: "a hook for extensions of Envoy",
                xds_config_tracker_extension: "a hook for extensions of Envoy",
                listener_manager: "there is one",
            }
        });
        let local_cluster_name = local_cluster(&at.field("cluster_manager"), cluster_manager);
        let mut connection_limits = ConnectionLimits::default();
        connection_limits.monitor(&at.field("overload_manager"), overload_manager)?;
        runtime(
            &at.field("layered_runtime"),
            layered_runtime,
            &mut connection_limits,
        );
        let resources = Static::from_proto(&at.field("static_resources"), static_resources)?;
        if let Some(name) = &local_cluster_name
            && !resources.clusters.iter().any(|cluster| cluster.name == *name)
        {
            let at = at.field("cluster_manager");
            let reason = format!("names no static cluster: {name:?}");
            return Err(at.field("local_cluster_name").reject(reason));
        }
        let dynamic = Dynamic::from_proto(&at.field("dynamic_resources"), dynamic_resources)?;
        let stats = Stats::from_proto(&at.field("stats_config"), stats_config)?;
        let admin = admin.map(|proto| admin_socket(&at.field("admin"), proto));
        let (admin, admin_socket_options) = admin.transpose()?.unwrap_or_default();
        Ok(Self {
            node: Node::from_proto(&at.field("node"), node)?,
            admin,
            admin_socket_options,
            listeners: resources.listeners,
            clusters: resources.clusters,
            secrets: resources.secrets,
            local_cluster_name,
            ads: dynamic.ads,
            lds: dynamic.lds,
            cds: dynamic.cds,
            connection_limits,
            stats_tags: stats.tags,
            stats_inclusion: stats.inclusion,
            histogram_buckets: stats.buckets,
        })
    }
}

struct Static {
    listeners: Vec<Listener>,
    clusters: Vec<Cluster>,
    secrets: Vec<Secret>,
}

impl Static {
    fn from_proto(at: &FieldPath<'_>, proto: Option<bootstrap::StaticResources>) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => bootstrap::StaticResources { supported { listeners, clusters, secrets } });
        let resources = Self {
            listeners: each(at.field("listeners"), listeners, Listener::from_proto)?,
            clusters: each(at.field("clusters"), clusters, Cluster::from_proto)?,
            secrets: each(at.field("secrets"), secrets, Secret::from_proto)?,
        };
        unique(
            at.field("listeners"),
            resources.listeners.iter().map(|listener| listener.name.as_str()),
        )?;
        unique(
            at.field("clusters"),
            resources.clusters.iter().map(|cluster| cluster.name.as_str()),
        )?;
        unique(
            at.field("secrets"),
            resources.secrets.iter().map(|secret| secret.name.as_str()),
        )?;
        Ok(resources)
    }
}

fn each<M, T>(
    at: FieldPath<'_>,
    protos: Vec<M>,
    convert: fn(&FieldPath<'_>, M) -> Result<T, Rejection>,
) -> Result<Vec<T>, Rejection> {
    protos
        .into_iter()
        .enumerate()
        .map(|(index, proto)| convert(&at.index(index), proto))
        .collect()
}

fn unique<'n>(at: FieldPath<'_>, names: impl Iterator<Item = &'n str>) -> Result<(), Rejection> {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(at
                .index(index)
                .field("name")
                .reject(format!("another one has the name {name:?}")));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Dynamic {
    ads: Option<AdsConfig>,
    lds: Option<ConfigSource>,
    cds: Option<ConfigSource>,
}

impl Dynamic {
    fn from_proto(at: &FieldPath<'_>, proto: Option<bootstrap::DynamicResources>) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        verdicts!(at, proto => bootstrap::DynamicResources {
            supported { lds_config, cds_config, ads_config }
            never {
                lds_resources_locator: "xdstp names, which Istio does not use",
                cds_resources_locator: "xdstp names, which Istio does not use",
            }
        });
        let ads = ads_config
            .map(|proto| AdsConfig::from_proto(&at.field("ads_config"), proto))
            .transpose()?;
        Ok(Self {
            lds: source(&at.field("lds_config"), lds_config, ads.is_some())?,
            cds: source(&at.field("cds_config"), cds_config, ads.is_some())?,
            ads,
        })
    }
}

/// Who serves a kind of resource. Until it has come the process is not ready, however long that takes.
fn source(
    at: &FieldPath<'_>,
    proto: Option<core::ConfigSource>,
    has_ads: bool,
) -> Result<Option<ConfigSource>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    let timeout = proto.initial_fetch_timeout.is_some();
    let source = ConfigSource::from_proto(at, Some(proto))?;
    if timeout && source.initial_fetch_timeout.is_some() {
        at.field("initial_fetch_timeout")
            .problem("has no effect here: the process waits for its first listeners and clusters for ever");
    }
    if source.server == ConfigServer::Ads && !has_ads {
        at.field("ads").problem("has no effect: there is no ads_config");
        return Ok(None);
    }
    Ok(Some(source))
}

/// The cluster of this proxy's peers.
fn local_cluster(at: &FieldPath<'_>, proto: Option<pb::ClusterManager>) -> Option<ClusterName> {
    let proto = proto?;
    verdicts!(at, proto => pb::ClusterManager {
        supported { local_cluster_name }
        inert { enable_deferred_cluster_creation: "when a cluster's objects are made is invisible from outside" }
        unsupported { outlier_detection: "telemetry", upstream_bind_config: "traffic" }
        never { load_stats_config: "load reports, which istiod does not ask for" }
    });
    Some(local_cluster_name).filter(|name| !name.is_empty())
}

fn runtime(at: &FieldPath<'_>, proto: Option<pb::LayeredRuntime>, limits: &mut ConnectionLimits) {
    let Some(proto) = proto else { return };
    verdicts!(at, proto => pb::LayeredRuntime { partly { layers: "static ones" } });
    choices!(LayerSpecifier {
        partly {
            StaticLayer: "`overload.global_downstream_max_connections` and `envoy.resource_limits.listener.<name>.connection_limit`; each other key is listed as without effect",
            DiskLayer: "listed as without effect",
            RtdsLayer: "listed as without effect",
        }
        inert { AdminLayer: "holds nothing until somebody sets it, and nobody can" }
    });
    for (index, proto) in layers.into_iter().enumerate() {
        let at = at.field("layers").index(index);
        verdicts!(at, proto => pb::RuntimeLayer {
            partly { layer_specifier: "static layers; each other key is listed as without effect" }
            inert { name: "names a layer, and nothing reads layers" }
        });
        match layer_specifier {
            Some(LayerSpecifier::StaticLayer(layer)) => limits.runtime(at.field("static_layer"), "", layer),
            Some(LayerSpecifier::DiskLayer(_)) => at.field("disk_layer").problem("has no effect here"),
            Some(LayerSpecifier::RtdsLayer(_)) => at.field("rtds_layer").problem("has no effect here"),
            Some(LayerSpecifier::AdminLayer(_)) | None => (),
        }
    }
}

/// Where the admin endpoint listens, and the options of its socket.
fn admin_socket(
    at: &FieldPath<'_>,
    proto: pb::Admin,
) -> Result<(Option<SocketAddr>, Vec<SocketOption>), Rejection> {
    verdicts!(at, proto => pb::Admin {
        supported { address, socket_options }
        partly {
            access_log: "to /dev/null, which is the same as none; others are listed as without effect",
            access_log_path: "/dev/null, which is the same as none; others are listed as without effect",
        }
        inert {
            profile_path: "names a file for a profiler that does not exist here",
            ignore_global_conn_limit: "no limit counts connections to the admin interface",
        }
        refused { allow_paths: "ignoring it would open the other paths" }
    });
    access_logs(&at.field("access_log"), access_log)?;
    if !access_log_path.is_empty() && access_log_path != NULL {
        at.field("access_log_path").problem("has no effect here");
    }
    let field = at.field("address");
    let options = SocketOption::list(at.field("socket_options"), socket_options)?;
    let Some(address) = address else {
        return Ok((None, options));
    };
    match Address::from_proto(&field, Some(address), Names::Refused)? {
        Address::Socket(address) => Ok((Some(address), options)),
        Address::Pipe(_) | Address::Host { .. } => Err(field.reject("must be an IP address and a port")),
    }
}

const NULL: &str = "/dev/null";

fn access_logs(at: &FieldPath<'_>, protos: Vec<accesslog::AccessLog>) -> Result<(), Rejection> {
    for (index, log) in AccessLog::list(*at, protos)?.into_iter().enumerate() {
        let is_null = matches!(&log.logger, Logger::File(file) if file.path.as_os_str() == NULL);
        if !is_null {
            at.index(index).problem("has no effect here");
        }
    }
    Ok(())
}
