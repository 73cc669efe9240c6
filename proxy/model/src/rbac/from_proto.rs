//! Protobuf to [`Rules`].
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::rbac::v3::{self as pb, permission, principal};
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use envoy_types::pb::envoy::r#type::v3 as range;

use super::{Action, ClientAddress, Permission, Policy, Principal, Rules, SourcedMetadata};
use crate::address::range as ip_range;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::metadata::{FilterStateMatcher, MetadataMatcher};
use crate::matcher::{HeaderMatcher, StringMatcher};

impl Rules {
    /// Converts rules.
    ///
    /// # Errors
    /// Where and why they are none.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Rbac) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Rbac {
            awaited "security" { action, policies }
            never { audit_logging_options: "audit loggers are extensions of Envoy that Istio does not configure" }
        });
        let action = match at.field("action").enumeration(action)? {
            pb::rbac::Action::Allow => Action::Allow,
            pb::rbac::Action::Deny => Action::Deny,
            pb::rbac::Action::Log => Action::Log,
        };
        let mut protos: Vec<_> = policies.into_iter().collect();
        protos.sort_by(|left, right| left.0.cmp(&right.0));
        let mut policies = Vec::with_capacity(protos.len());
        for (name, proto) in protos {
            let policy = Policy::from_proto(&at.field("policies").key(&name), proto)?;
            policies.push((name, policy));
        }
        Ok(Self { action, policies })
    }
}

impl Policy {
    fn from_proto(at: &FieldPath<'_>, proto: pb::Policy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Policy {
            awaited "security" { permissions, principals, condition }
            never { cel_config: "functions of conditions that Istio does not use" }
            refused { checked_condition: "ignoring it would let more through: write condition" }
        });
        Ok(Self {
            permissions: some(at.field("permissions"), permissions, Permission::from_proto)?,
            principals: some(at.field("principals"), principals, Principal::from_proto)?,
            has_condition: condition.is_some(),
        })
    }
}

/// A list that must not be empty.
fn some<P, T>(
    at: FieldPath<'_>,
    protos: Vec<P>,
    convert: impl Fn(&FieldPath<'_>, P) -> Result<T, Rejection>,
) -> Result<Vec<T>, Rejection> {
    if protos.is_empty() {
        return Err(at.reject("needs at least one item"));
    }
    let items = protos.into_iter().enumerate();
    items
        .map(|(index, proto)| convert(&at.index(index), proto))
        .collect()
}

impl Permission {
    fn from_proto(at: &FieldPath<'_>, proto: pb::Permission) -> Result<Self, Rejection> {
        use permission::Rule;
        verdicts!(at, proto => pb::Permission { awaited "security" { rule } });
        choices!(permission::Rule {
            awaited "security" {
                AndRules, OrRules, Any, Header, UrlPath, DestinationIp, DestinationPort, DestinationPortRange, Metadata, NotRule,
                RequestedServerName, UriTemplate, SourcedMetadata,
            }
            refused { Matcher: "no matcher extension exists here" }
        });
        let set = |field, proto: permission::Set| {
            verdicts!((), proto => permission::Set { awaited "security" { rules } });
            some(at.field(field).field("rules"), rules, Self::from_proto)
        };
        Ok(match at.required(rule)? {
            Rule::AndRules(proto) => Self::And(set("and_rules", proto)?),
            Rule::OrRules(proto) => Self::Or(set("or_rules", proto)?),
            Rule::NotRule(proto) => Self::Not(Box::new(Self::from_proto(&at.field("not_rule"), *proto)?)),
            Rule::Any(value) => {
                must_be_true(&at.field("any"), value)?;
                Self::Any
            }
            Rule::Header(proto) => Self::Header(HeaderMatcher::from_proto(&at.field("header"), proto)?),
            Rule::UrlPath(proto) => Self::UrlPath(url_path(&at.field("url_path"), proto)?),
            Rule::UriTemplate(proto) => Self::UriTemplate(uri_template(&at.field("uri_template"), proto)?),
            Rule::DestinationIp(proto) => Self::DestinationIp(ip_range(&at.field("destination_ip"), proto)?),
            Rule::DestinationPort(port) => {
                let port = u32::from(at.field("destination_port").port(port)?);
                Self::DestinationPort {
                    start: port,
                    end: port + 1,
                }
            }
            Rule::DestinationPortRange(proto) => ports(&at.field("destination_port_range"), proto)?,
            Rule::Metadata(proto) => Self::Metadata(SourcedMetadata {
                matcher: MetadataMatcher::from_proto(&at.field("metadata"), proto)?,
                of_route: false,
            }),
            Rule::SourcedMetadata(proto) => {
                Self::Metadata(SourcedMetadata::from_proto(&at.field("sourced_metadata"), proto)?)
            }
            Rule::RequestedServerName(proto) => Self::RequestedServerName(StringMatcher::from_proto(
                &at.field("requested_server_name"),
                proto,
            )?),
            Rule::Matcher(_) => return Err(at.field("matcher").reject("is not supported")),
        })
    }
}

impl Principal {
    fn from_proto(at: &FieldPath<'_>, proto: pb::Principal) -> Result<Self, Rejection> {
        use principal::Identifier;
        verdicts!(at, proto => pb::Principal { awaited "security" { identifier } });
        choices!(principal::Identifier {
            awaited "security" {
                AndIds, OrIds, Any, Authenticated, SourceIp, DirectRemoteIp, RemoteIp, Header, UrlPath, Metadata, FilterState,
                NotId, SourcedMetadata,
            }
            refused { Custom: "no principal extension exists here" }
        });
        let set = |field, proto: principal::Set| {
            verdicts!((), proto => principal::Set { awaited "security" { ids } });
            some(at.field(field).field("ids"), ids, Self::from_proto)
        };
        let ip = |of, field, proto| {
            let range = ip_range(&at.field(field), proto)?;
            Ok(Self::Ip { of, range })
        };
        Ok(match at.required(identifier)? {
            Identifier::AndIds(proto) => Self::And(set("and_ids", proto)?),
            Identifier::OrIds(proto) => Self::Or(set("or_ids", proto)?),
            Identifier::NotId(proto) => Self::Not(Box::new(Self::from_proto(&at.field("not_id"), *proto)?)),
            Identifier::Any(value) => {
                must_be_true(&at.field("any"), value)?;
                Self::Any
            }
            Identifier::Authenticated(proto) => {
                Self::Authenticated(authenticated(&at.field("authenticated"), proto)?)
            }
            Identifier::SourceIp(proto) => ip(ClientAddress::Source, "source_ip", proto)?,
            Identifier::DirectRemoteIp(proto) => ip(ClientAddress::Direct, "direct_remote_ip", proto)?,
            Identifier::RemoteIp(proto) => ip(ClientAddress::Remote, "remote_ip", proto)?,
            Identifier::Header(proto) => Self::Header(HeaderMatcher::from_proto(&at.field("header"), proto)?),
            Identifier::UrlPath(proto) => Self::UrlPath(url_path(&at.field("url_path"), proto)?),
            Identifier::Metadata(proto) => Self::Metadata(SourcedMetadata {
                matcher: MetadataMatcher::from_proto(&at.field("metadata"), proto)?,
                of_route: false,
            }),
            Identifier::SourcedMetadata(proto) => {
                Self::Metadata(SourcedMetadata::from_proto(&at.field("sourced_metadata"), proto)?)
            }
            Identifier::FilterState(proto) => {
                Self::FilterState(FilterStateMatcher::from_proto(&at.field("filter_state"), proto)?)
            }
            Identifier::Custom(_) => return Err(at.field("custom").reject("is not supported")),
        })
    }
}

fn authenticated(
    at: &FieldPath<'_>,
    proto: principal::Authenticated,
) -> Result<Option<StringMatcher>, Rejection> {
    verdicts!(at, proto => principal::Authenticated { awaited "security" { principal_name } });
    let at = at.field("principal_name");
    principal_name
        .map(|proto| StringMatcher::from_proto(&at, proto))
        .transpose()
}

impl SourcedMetadata {
    fn from_proto(at: &FieldPath<'_>, proto: pb::SourcedMetadata) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::SourcedMetadata { awaited "security" { metadata_matcher, metadata_source } });
        let of_route = match at.field("metadata_source").enumeration(metadata_source)? {
            pb::MetadataSource::Dynamic => false,
            pb::MetadataSource::Route => true,
        };
        let at = at.field("metadata_matcher");
        let matcher = MetadataMatcher::from_proto(&at, at.required(metadata_matcher)?)?;
        Ok(Self { matcher, of_route })
    }
}

/// Envoy: `[(validate.rules).bool = {const: true}]`.
fn must_be_true(at: &FieldPath<'_>, value: bool) -> Result<(), Rejection> {
    match value {
        true => Ok(()),
        false => Err(at.reject("must be true; write a not rule instead")),
    }
}

fn url_path(at: &FieldPath<'_>, proto: PathMatcher) -> Result<StringMatcher, Rejection> {
    verdicts!(at, proto => PathMatcher { awaited "security" { rule } });
    choices!(path_matcher::Rule { awaited "security" { Path } });
    let path_matcher::Rule::Path(path) = at.required(rule)?;
    StringMatcher::from_proto(&at.field("path"), path)
}

fn uri_template(at: &FieldPath<'_>, proto: core::TypedExtensionConfig) -> Result<String, Rejection> {
    verdicts!(at, proto => core::TypedExtensionConfig {
        awaited "security" { typed_config }
        partly { name: "in rejections; what a matcher does is in the type of its config" }
    });
    let at = at.field("typed_config");
    let config = TypedConfig::open(&at, typed_config)?;
    if config.type_name != types::URI_TEMPLATE {
        return Err(config.reject(&at, "path matcher", &name, &[types::URI_TEMPLATE]));
    }
    verdicts!(at, config.message(&at)? => UriTemplateMatchConfig { awaited "security" { path_template } });
    let at = at.field("path_template");
    match path_template.starts_with('/') {
        true => Ok(path_template),
        false => Err(at.reject(format!("{path_template:?} does not begin with \"/\""))),
    }
}

fn ports(at: &FieldPath<'_>, proto: range::Int32Range) -> Result<Permission, Rejection> {
    verdicts!(at, proto => range::Int32Range { awaited "security" { start, end } });
    match (u32::try_from(start), u32::try_from(end)) {
        (Ok(start), Ok(end)) if start < end && end <= 65_536 => {
            Ok(Permission::DestinationPort { start, end })
        }
        _ => Err(at.reject(format!("{start}..{end} is no range of ports"))),
    }
}
