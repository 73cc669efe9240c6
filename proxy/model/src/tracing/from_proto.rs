//! Protobuf to [`Tracing`] and [`CustomTag`].
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use envoy_types::pb::envoy::r#type::metadata::v3::{self as metadata, metadata_key, metadata_kind};
use envoy_types::pb::envoy::r#type::tracing::v3::{self as pb, custom_tag};

use super::{CustomTag, MetadataOwner, Provider, Spans, TagValue, Tracing};
use crate::cluster::Percent;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::scalar::Wrapped;

/// `Tracing.max_path_tag_length` when unset.
const MAX_PATH_BYTES: u32 = 256;

impl Tracing {
    /// Converts the settings.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: hcm::Tracing) -> Result<Self, Rejection> {
        verdicts!(at, proto => hcm::Tracing {
            supported { client_sampling, random_sampling, overall_sampling }
            awaited "telemetry" {
                verbose, max_path_tag_length, custom_tags, spawn_upstream_span, operation, upstream_operation,
                no_context_propagation,
            }
            unsupported { provider: "telemetry" }
        });
        let percent = |field, proto| {
            at.field(field)
                .percent(proto)
                .map(|percent| percent.map_or(10_000, |Percent(p)| p))
        };
        let provider = provider.map(|proto| Provider::from_proto(&at.field("provider"), proto));
        let tags = custom_tags.into_iter().enumerate();
        let tags =
            tags.map(|(index, proto)| CustomTag::from_proto(&at.field("custom_tags").index(index), proto));
        Ok(Self {
            client_sampling: percent("client_sampling", client_sampling)?,
            random_sampling: percent("random_sampling", random_sampling)?,
            overall_sampling: percent("overall_sampling", overall_sampling)?,
            spans: Box::new(Spans {
                provider: provider.transpose()?,
                tags: tags.collect::<Result<_, _>>()?,
                is_verbose: verbose,
                max_path_bytes: max_path_tag_length.value().unwrap_or(MAX_PATH_BYTES),
                per_attempt: spawn_upstream_span.value(),
                operation,
                upstream_operation,
                no_context_propagation,
            }),
        })
    }
}

impl CustomTag {
    fn from_proto(at: &FieldPath<'_>, proto: pb::CustomTag) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::CustomTag { awaited "telemetry" { tag, r#type } });
        choices!(custom_tag::Type {
            awaited "telemetry" { Literal, Environment, RequestHeader, Metadata, Value }
        });
        let value = match r#type {
            Some(custom_tag::Type::Literal(proto)) => {
                let at = at.field("literal");
                verdicts!(at, proto => custom_tag::Literal { awaited "telemetry" { value } });
                TagValue::Literal(at.field("value").not_empty(value)?)
            }
            Some(custom_tag::Type::Environment(proto)) => {
                let at = at.field("environment");
                verdicts!(at, proto => custom_tag::Environment { awaited "telemetry" { name, default_value } });
                TagValue::Environment {
                    name: at.field("name").not_empty(name)?,
                    default: default_value,
                }
            }
            Some(custom_tag::Type::RequestHeader(proto)) => {
                let at = at.field("request_header");
                verdicts!(at, proto => custom_tag::Header { awaited "telemetry" { name, default_value } });
                TagValue::RequestHeader {
                    name: at.field("name").not_empty(name)?.to_ascii_lowercase(),
                    default: default_value,
                }
            }
            Some(custom_tag::Type::Metadata(proto)) => TagValue::metadata(&at.field("metadata"), proto)?,
            Some(custom_tag::Type::Value(format)) => TagValue::Format(format),
            None => {
                return Err(at.reject("has no value: write literal, environment, request_header or metadata"));
            }
        };
        Ok(Self {
            name: at.field("tag").not_empty(tag)?,
            value,
        })
    }
}

impl TagValue {
    fn metadata(at: &FieldPath<'_>, proto: custom_tag::Metadata) -> Result<Self, Rejection> {
        verdicts!(at, proto => custom_tag::Metadata { awaited "telemetry" { kind, metadata_key, default_value } });
        verdicts!(at, kind.unwrap_or_default() => metadata::MetadataKind { awaited "telemetry" { kind } });
        choices!(metadata_kind::Kind { awaited "telemetry" { Request, Route, Cluster, Host } });
        let of = match kind {
            Some(metadata_kind::Kind::Request(proto)) => {
                verdicts!((), proto => metadata_kind::Request {});
                MetadataOwner::Request
            }
            Some(metadata_kind::Kind::Route(proto)) => {
                verdicts!((), proto => metadata_kind::Route {});
                MetadataOwner::Route
            }
            Some(metadata_kind::Kind::Cluster(proto)) => {
                verdicts!((), proto => metadata_kind::Cluster {});
                MetadataOwner::Cluster
            }
            Some(metadata_kind::Kind::Host(proto)) => {
                verdicts!((), proto => metadata_kind::Host {});
                MetadataOwner::Host
            }
            None => return Err(at.field("kind").reject("is missing")),
        };
        let at = at.field("metadata_key");
        verdicts!(at, at.required(metadata_key)? => metadata::MetadataKey { awaited "telemetry" { key, path } });
        let path = path.into_iter().enumerate().map(|(index, proto)| {
            let at = at.field("path").index(index);
            verdicts!(at, proto => metadata_key::PathSegment { awaited "telemetry" { segment } });
            choices!(metadata_key::path_segment::Segment {
                awaited "telemetry" { Key }
                refused { Index: "places in lists have no behaviour here" }
            });
            match segment {
                Some(metadata_key::path_segment::Segment::Key(key)) => at.field("key").not_empty(key),
                Some(metadata_key::path_segment::Segment::Index(_)) => {
                    Err(at.field("index").reject("is not supported; write key"))
                }
                None => Err(at.reject("has no key")),
            }
        });
        let path = path.collect::<Result<Vec<_>, _>>()?;
        if path.is_empty() {
            return Err(at.field("path").reject("needs at least one key"));
        }
        Ok(Self::Metadata {
            of,
            namespace: at.field("key").not_empty(key)?,
            path,
            default: default_value,
        })
    }
}
