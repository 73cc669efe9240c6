//! Protobuf to [`ConfigSource`] and [`AdsConfig`].
use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    self as pb, api_config_source::ApiType, config_source::ConfigSourceSpecifier, grpc_service,
};

use super::{AdsConfig, AdsMode, ConfigServer, ConfigSource, GrpcServer, RestServer};
use crate::cluster::ClusterName;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::service::initial_metadata as metadata_of;

/// `ConfigSource.initial_fetch_timeout` when unset.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// `ApiConfigSource.request_timeout` when unset.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

impl ConfigSource {
    /// Converts a source that must be there.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::ConfigSource>) -> Result<Self, Rejection> {
        verdicts!(at, at.required(proto)? => pb::ConfigSource {
            supported { initial_fetch_timeout, config_source_specifier }
            partly { resource_api_version: "V3 only; others are refused, as in Envoy" }
            never { authorities: "for xdstp names, which Istio does not use" }
        });
        choices!(ConfigSourceSpecifier {
            supported { Ads, ApiConfigSource }
            partly {
                Path: "the file may appear later, and may hold other resources as well, where Envoy refuses both",
                PathConfigSource: "the file may appear later, and may hold other resources as well, where Envoy refuses both",
            }
            refused {
                Self_: "the server of the resource itself as a source has no behaviour here",
            }
        });
        check_version(&at.field("resource_api_version"), resource_api_version)?;
        let timeout = at
            .field("initial_fetch_timeout")
            .limit(initial_fetch_timeout, INITIAL_FETCH_TIMEOUT)?;
        let server = match config_source_specifier {
            Some(ConfigSourceSpecifier::Ads(proto)) => {
                verdicts!(at, proto => pb::AggregatedConfigSource {});
                ConfigServer::Ads
            }
            Some(ConfigSourceSpecifier::ApiConfigSource(proto)) => {
                api_source(&at.field("api_config_source"), proto)?
            }
            Some(ConfigSourceSpecifier::Path(path)) => {
                ConfigServer::Path(PathBuf::from(at.field("path").not_empty(path)?))
            }
            Some(ConfigSourceSpecifier::PathConfigSource(proto)) => {
                ConfigServer::Path(path_source(&at.field("path_config_source"), proto)?)
            }
            Some(ConfigSourceSpecifier::Self_(_)) => {
                return Err(at
                    .field("self")
                    .reject("is not supported; write ads, api_config_source or path_config_source"));
            }
            None => return Err(at.reject("has none of ads, api_config_source and path_config_source")),
        };
        Ok(Self {
            server,
            initial_fetch_timeout: timeout,
        })
    }
}

/// Envoy refuses V2 and AUTO.
fn check_version(at: &FieldPath<'_>, number: i32) -> Result<(), Rejection> {
    match at.enumeration(number)? {
        pb::ApiVersion::V3 => Ok(()),
        pb::ApiVersion::Auto | pb::ApiVersion::V2 => Err(at.reject("only V3 is supported")),
    }
}

/// The file of a source.
fn path_source(at: &FieldPath<'_>, proto: pb::PathConfigSource) -> Result<PathBuf, Rejection> {
    verdicts!(at, proto => pb::PathConfigSource {
        supported { path }
        inert {
            watched_directory: "every change is seen without it: the file is looked at once a second, through symbolic links",
            poll_interval: "newer than Envoy 1.40; the file is looked at once a second without it",
        }
    });
    Ok(PathBuf::from(at.field("path").not_empty(path)?))
}

/// A server of its own.
fn api_source(at: &FieldPath<'_>, proto: pb::ApiConfigSource) -> Result<ConfigServer, Rejection> {
    verdicts!(at, proto => pb::ApiConfigSource {
        supported { api_type, grpc_services, cluster_names, refresh_delay, request_timeout }
        partly { transport_api_version: "V3 only; others are refused, as in Envoy" }
        inert { set_node_on_first_message_only: "the first message of a stream, which identifies it, has the node either way" }
        never {
            rate_limit_settings: "requests follow answers one by one, so there is no flood to limit",
            config_validators: "a hook for extensions of Envoy",
        }
    });
    check_version(&at.field("transport_api_version"), transport_api_version)?;
    let kind = at.field("api_type").enumeration(api_type)?;
    if kind != ApiType::Rest && !cluster_names.is_empty() {
        return Err(at
            .field("cluster_names")
            .reject("are for REST; write grpc_services"));
    }
    match kind {
        ApiType::Grpc => grpc_server(at, grpc_services).map(ConfigServer::Grpc),
        ApiType::DeltaGrpc => grpc_server(at, grpc_services).map(ConfigServer::DeltaGrpc),
        ApiType::Rest if !grpc_services.is_empty() => Err(at
            .field("grpc_services")
            .reject("are not for REST; write cluster_names")),
        ApiType::Rest => {
            let delay = at.field("refresh_delay");
            let refresh_delay = delay.duration(refresh_delay)?;
            Ok(ConfigServer::Rest(RestServer {
                cluster: rest_cluster(&at.field("cluster_names"), cluster_names)?,
                refresh_delay: refresh_delay
                    .filter(|delay| !delay.is_zero())
                    .ok_or_else(|| delay.reject("must be given for REST, and above 0"))?,
                request_timeout: at
                    .field("request_timeout")
                    .duration(request_timeout)?
                    .unwrap_or(REQUEST_TIMEOUT),
            }))
        }
        other => Err(not_one_of(
            &at.field("api_type"),
            other,
            &[ApiType::Grpc, ApiType::DeltaGrpc, ApiType::Rest],
        )),
    }
}

fn rest_cluster(at: &FieldPath<'_>, names: Vec<ClusterName>) -> Result<ClusterName, Rejection> {
    let count = names.len();
    match (names.into_iter().next(), count) {
        (Some(name), 1) => at.index(0).not_empty(name),
        _ => Err(at.reject(format!("needs exactly one server, not {count}"))),
    }
}

fn not_one_of(at: &FieldPath<'_>, found: ApiType, valid: &[ApiType]) -> Rejection {
    let name = found.as_str_name();
    at.reject_name(
        format!("{name} is not supported"),
        name,
        valid.iter().map(ApiType::as_str_name),
    )
}

impl AdsConfig {
    /// Converts `dynamic_resources.ads_config`.
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: pb::ApiConfigSource) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ApiConfigSource {
            supported { api_type, grpc_services }
            partly { transport_api_version: "V3 only; others are refused, as in Envoy" }
            inert {
                set_node_on_first_message_only: "the first message of a stream, which identifies it, has the node either way",
                cluster_names: "are for REST, which is refused here, as in Envoy",
                refresh_delay: "is for REST, which is refused here, as in Envoy",
                request_timeout: "is for REST, which is refused here, as in Envoy",
            }
            never {
                rate_limit_settings: "requests follow answers one by one, so there is no flood to limit",
                config_validators: "a hook for extensions of Envoy",
            }
        });
        check_version(&at.field("transport_api_version"), transport_api_version)?;
        let mode = match at.field("api_type").enumeration(api_type)? {
            ApiType::Grpc => AdsMode::Sotw,
            ApiType::DeltaGrpc => AdsMode::Delta,
            other => {
                return Err(not_one_of(
                    &at.field("api_type"),
                    other,
                    &[ApiType::Grpc, ApiType::DeltaGrpc],
                ));
            }
        };
        Ok(Self {
            mode,
            server: grpc_server(at, grpc_services)?,
        })
    }
}

fn grpc_server(at: &FieldPath<'_>, protos: Vec<pb::GrpcService>) -> Result<GrpcServer, Rejection> {
    let field = at.field("grpc_services");
    let count = protos.len();
    let (Some(proto), 1) = (protos.into_iter().next(), count) else {
        return Err(field.reject(format!("needs exactly one server, not {count}")));
    };
    let at = field.index(0);
    verdicts!(at, proto => pb::GrpcService {
        supported { target_specifier, initial_metadata }
        never {
            timeout: "a stream of configuration has no end",
            retry_policy: "a stream that ends is opened again by the rule of docs/adr/0007-reconnect.md",
        }
    });
    let metadata = metadata_of(at.field("initial_metadata"), initial_metadata)?;
    choices!(grpc_service::TargetSpecifier {
        supported { EnvoyGrpc }
        refused { GoogleGrpc: "there is no second gRPC library here" }
    });
    match target_specifier {
        Some(grpc_service::TargetSpecifier::EnvoyGrpc(proto)) => {
            let at = at.field("envoy_grpc");
            verdicts!(at, proto => grpc_service::EnvoyGrpc {
                supported { cluster_name }
                unsupported { authority: "agent", max_receive_message_length: "agent" }
                never {
                    retry_policy: "a stream that ends is opened again by the rule of docs/adr/0007-reconnect.md",
                    skip_envoy_headers: "none are sent",
                }
            });
            Ok(GrpcServer {
                cluster: at.field("cluster_name").not_empty(cluster_name)?,
                metadata,
            })
        }
        Some(grpc_service::TargetSpecifier::GoogleGrpc(_)) => Err(at
            .field("google_grpc")
            .reject("is not supported; write envoy_grpc")),
        None => Err(at.field("envoy_grpc").reject("is missing")),
    }
}
