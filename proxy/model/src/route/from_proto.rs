//! Protobuf to [`RouteTableConfig`]: table, virtual hosts and routes.
use std::collections::HashSet;

use envoy_types::pb::envoy::config::route::v3::{
    self as pb, query_parameter_matcher::QueryParameterMatchSpecifier,
};

use super::headers;
use super::{
    BufferLimits, CookieMatcher, HedgePolicy, MirrorPolicy, PathMatch, QueryMatch, Redirect, RetryPolicy,
    Route, RouteAction, RouteMatch, RouteTableConfig, TlsRequirement, VirtualHost,
};
use crate::access_log::BodyFormat;
use crate::bootstrap::{ConfigServer, ConfigSource};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::http_filter::cors::CorsPolicy;
use crate::http_filter::rate_limit::RateLimit;
use crate::http_filter::route_config::FilterSettings;
use crate::matcher::{HeaderMatcher, StringMatcher, safe_regex};
use crate::scalar::Wrapped;
use crate::secret::DataSource;

/// `RouteConfiguration.max_direct_response_body_size_bytes` when unset.
const MAX_DIRECT_RESPONSE_BODY_BYTES: u32 = 4096;

impl RouteTableConfig {
    /// Converts a table, from RDS or inline.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::RouteConfiguration) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::RouteConfiguration {
            supported {
                virtual_hosts, vhds, max_direct_response_body_size_bytes, ignore_port_in_host_matching,
                ignore_path_parameters_in_path_matching, vhost_header,
                request_headers_to_add, request_headers_to_remove, response_headers_to_add, response_headers_to_remove,
                most_specific_header_mutations_wins, typed_per_filter_config, request_mirror_policies, internal_only_headers,
            }
            partly {
                validate_clusters: "false; true is listed as without effect: a route to an unknown cluster answers as cluster_not_found_response_code says",
            }
            inert {
                name: "the stream that brings the table names it; nothing shows the name of an inline one",
                metadata: "only formatters and filters that do not exist here read it",
            }
            refused {
                cluster_specifier_plugins: "ignoring it would send requests elsewhere",
                route_specifiers: "ignoring it would match other routes",
            }
        });
        if validate_clusters.value() == Some(true) {
            at.field("validate_clusters").problem("true has no effect here");
        }
        let vhds = vhds
            .map(|proto| vhds_source(&at.field("vhds"), proto))
            .transpose()?;
        let body_bytes = max_direct_response_body_size_bytes
            .value()
            .unwrap_or(MAX_DIRECT_RESPONSE_BODY_BYTES);
        let hosts = virtual_hosts.into_iter().enumerate().map(|(index, proto)| {
            VirtualHost::from_proto(&at.field("virtual_hosts").index(index), proto, body_bytes)
        });
        let virtual_hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        check_unique(at, &virtual_hosts)?;
        Ok(Self {
            virtual_hosts,
            vhds,
            ignore_port_in_host_matching,
            ignore_path_parameters: ignore_path_parameters_in_path_matching,
            vhost_header: vhost_header.to_ascii_lowercase(),
            max_direct_response_body_bytes: body_bytes,
            most_specific_headers_win: most_specific_header_mutations_wins,
            internal_only_headers: names(at.field("internal_only_headers"), &internal_only_headers)?,
            filter_settings: FilterSettings::list(
                at.field("typed_per_filter_config"),
                typed_per_filter_config,
            )?,
            mirrors: MirrorPolicy::list(at.field("request_mirror_policies"), request_mirror_policies)?,
            headers: headers::mutations(
                at,
                headers::Protos {
                    request_headers_to_add,
                    request_headers_to_remove,
                    response_headers_to_add,
                    response_headers_to_remove,
                },
            )?,
        })
    }
}

fn names(at: FieldPath<'_>, names: &[String]) -> Result<Vec<String>, Rejection> {
    let names = names.iter().enumerate();
    names
        .map(|(index, name)| headers::header_name(&at.index(index), name))
        .collect()
}

/// As Envoy, only what speaks increments can have virtual hosts.
fn vhds_source(at: &FieldPath<'_>, proto: pb::Vhds) -> Result<ConfigSource, Rejection> {
    verdicts!(at, proto => pb::Vhds { supported { config_source } });
    let at = at.field("config_source");
    let source = ConfigSource::from_proto(&at, config_source)?;
    match source.server {
        ConfigServer::Ads | ConfigServer::DeltaGrpc(_) => Ok(source),
        ConfigServer::Grpc(_) | ConfigServer::Rest(_) | ConfigServer::Path(_) => {
            Err(at.reject("must be ads or of type DELTA_GRPC"))
        }
    }
}

/// Names and domains belong to one virtual host each, as in Envoy.
fn check_unique(at: &FieldPath<'_>, hosts: &[VirtualHost]) -> Result<(), Rejection> {
    let (mut names, mut domains) = (HashSet::new(), HashSet::new());
    for (index, host) in hosts.iter().enumerate() {
        let at = at.field("virtual_hosts").index(index);
        if !names.insert(host.name.as_str()) {
            return Err(at
                .field("name")
                .reject(format!("another virtual host has the name {:?}", host.name)));
        }
        for (index, domain) in host.domains.iter().enumerate() {
            if !domains.insert(domain.as_str()) {
                let reason =
                    format!("the domain {domain:?} was listed before; only one virtual host can have it");
                return Err(at.field("domains").index(index).reject(reason));
            }
        }
    }
    Ok(())
}

impl VirtualHost {
    /// Converts one that comes by itself.
    pub(crate) fn from_vhds(at: &FieldPath<'_>, proto: pb::VirtualHost) -> Result<Self, Rejection> {
        Self::from_proto(at, proto, MAX_DIRECT_RESPONSE_BODY_BYTES)
    }

    fn from_proto(at: &FieldPath<'_>, proto: pb::VirtualHost, body_bytes: u32) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::VirtualHost {
            supported {
                domains, routes, include_request_attempt_count, include_attempt_count_in_response,
                include_is_timeout_retry_header, retry_policy, hedge_policy, request_headers_to_add,
                request_headers_to_remove, response_headers_to_add, response_headers_to_remove, cors,
                typed_per_filter_config, rate_limits, request_mirror_policies, per_request_buffer_limit_bytes,
                request_body_buffer_limit, require_tls,
            }
            partly {
                name: "must be there and be unique; nothing shows it",
            }
            inert { metadata: "only formatters and filters that do not exist here read it" }
            unsupported {
                virtual_clusters: "telemetry",
            }
            never { retry_policy_typed_config: "Envoy hides it from users, and has no such extension" }
            refused {
                matcher: "ignoring it would match other routes",
                route_specifiers: "ignoring it would match other routes",
            }
        });
        if domains.is_empty() {
            return Err(at.field("domains").reject("needs at least one domain"));
        }
        let domains = domains.into_iter().enumerate();
        let domains = domains.map(|(index, text)| domain(&at.field("domains").index(index), &text));
        let routes = routes
            .into_iter()
            .enumerate()
            .map(|(index, proto)| Route::from_proto(&at.field("routes").index(index), proto, body_bytes));
        let retry_policy =
            retry_policy.map(|proto| RetryPolicy::from_proto(&at.field("retry_policy"), proto));
        Ok(Self {
            name: at.field("name").not_empty(name)?,
            domains: domains.collect::<Result<_, _>>()?,
            routes: routes.collect::<Result<_, _>>()?,
            tls_requirement: TlsRequirement::from_proto(&at.field("require_tls"), require_tls)?,
            include_request_attempt_count,
            include_attempt_count_in_response,
            include_is_timeout_retry_header,
            filter_settings: FilterSettings::list(
                at.field("typed_per_filter_config"),
                typed_per_filter_config,
            )?,
            mirrors: MirrorPolicy::list(at.field("request_mirror_policies"), request_mirror_policies)?,
            headers: headers::mutations(
                at,
                headers::Protos {
                    request_headers_to_add,
                    request_headers_to_remove,
                    response_headers_to_add,
                    response_headers_to_remove,
                },
            )?,
            retry_policy: retry_policy.transpose()?,
            hedge_policy: HedgePolicy::from_proto(&at.field("hedge_policy"), hedge_policy)?,
            rate_limits: RateLimit::list(at.field("rate_limits"), rate_limits)?,
            buffer_limits: BufferLimits {
                request_body: request_body_buffer_limit.map(|limit| limit.value),
                per_request: per_request_buffer_limit_bytes.value(),
            },
            cors: cors
                .map(|proto| CorsPolicy::from_legacy(&at.field("cors"), proto))
                .transpose()?,
        })
    }
}

impl TlsRequirement {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        use pb::virtual_host::TlsRequirementType as Requirement;
        Ok(match at.enumeration(number)? {
            Requirement::None => Self::None,
            Requirement::ExternalOnly => Self::External,
            Requirement::All => Self::All,
        })
    }
}

/// A `*` may stand at one end. Source: route_components.proto, `VirtualHost.domains`.
fn domain(at: &FieldPath<'_>, text: &str) -> Result<String, Rejection> {
    let domain = at.not_empty(text.to_ascii_lowercase())?;
    let inner = domain
        .strip_prefix('*')
        .or_else(|| domain.strip_suffix('*'))
        .unwrap_or(&domain);
    if inner.contains('*') {
        return Err(at.reject(format!(
            "{domain:?} may have a `*` only at its beginning or only at its end"
        )));
    }
    Ok(domain)
}

impl Route {
    fn from_proto(at: &FieldPath<'_>, proto: pb::Route, body_bytes: u32) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Route {
            supported {
                name, r#match, decorator, action, request_headers_to_add, request_headers_to_remove,
                response_headers_to_add, response_headers_to_remove, typed_per_filter_config,
                per_request_buffer_limit_bytes, request_body_buffer_limit,
            }
            inert { metadata: "only formatters and filters that do not exist here read it; /config_dump shows what was received" }
            unsupported {
                tracing: "telemetry", stat_prefix: "telemetry",
            }
            refused { route_specifiers: "ignoring it would match other routes" }
        });
        let matcher = RouteMatch::from_proto(&at.field("match"), at.field("match").required(r#match)?)?;
        let action = action_from_proto(at, action, body_bytes)?;
        if matcher.path == PathMatch::Connect {
            without_path(at, &action);
        }
        Ok(Self {
            name,
            matcher,
            action,
            buffer_limits: BufferLimits {
                request_body: request_body_buffer_limit.map(|limit| limit.value),
                per_request: per_request_buffer_limit_bytes.value(),
            },
            decorator_operation: decorator
                .map(|proto| decorator_operation(&at.field("decorator"), proto))
                .transpose()?,
            filter_settings: FilterSettings::list(
                at.field("typed_per_filter_config"),
                typed_per_filter_config,
            )?,
            headers: headers::mutations(
                at,
                headers::Protos {
                    request_headers_to_add,
                    request_headers_to_remove,
                    response_headers_to_add,
                    response_headers_to_remove,
                },
            )?,
        })
    }
}

/// Envoy gives a CONNECT a path then, and refuses to send it.
fn without_path(at: &FieldPath<'_>, action: &RouteAction) {
    let RouteAction::Forward(forward) = action else {
        return;
    };
    let rewrites = [
        ("prefix_rewrite", forward.prefix_rewrite.is_some()),
        ("regex_rewrite", forward.regex_rewrite.is_some()),
    ];
    for (name, _) in rewrites.iter().filter(|(_, is_set)| *is_set) {
        at.field("route")
            .field(name)
            .problem("has no effect here: a CONNECT has no path");
    }
}

fn decorator_operation(at: &FieldPath<'_>, proto: pb::Decorator) -> Result<String, Rejection> {
    verdicts!(at, proto => pb::Decorator {
        supported { operation }
        unsupported { propagate: "telemetry" }
    });
    at.field("operation").not_empty(operation)
}

impl RouteMatch {
    /// Converts a match; other filters have them too.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::RouteMatch) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::RouteMatch {
            supported {
                case_sensitive, headers, query_parameters, path_specifier, runtime_fraction, cookies, grpc, tls_context,
            }
            refused {
                dynamic_metadata: "ignoring it would match more requests",
                filter_state: "ignoring it would match more requests",
            }
        });
        verdicts!((), tls_context.unwrap_or_default() => pb::route_match::TlsContextMatchOptions {
            supported { presented, validated }
        });
        let parameters = query_parameters.into_iter().enumerate();
        let parameters = parameters
            .map(|(index, proto)| query_parameter(&at.field("query_parameters").index(index), proto));
        Ok(Self {
            path: PathMatch::from_proto(at, path_specifier)?,
            case_sensitive: case_sensitive.value().unwrap_or(true),
            headers: HeaderMatcher::list(at.field("headers"), headers)?,
            query_parameters: parameters.collect::<Result<_, _>>()?,
            cookies: cookies
                .into_iter()
                .enumerate()
                .map(|(index, proto)| CookieMatcher::from_proto(&at.field("cookies").index(index), proto))
                .collect::<Result<_, _>>()?,
            only_grpc: grpc.is_some_and(|proto| {
                verdicts!((), proto => pb::route_match::GrpcRouteMatchOptions {});
                true
            }),
            runtime_share: at
                .field("runtime_fraction")
                .runtime_fraction(runtime_fraction)?
                .unwrap_or(Fraction::ALL),
            certificate_presented: presented.value(),
            certificate_validated: validated.value(),
        })
    }
}

impl CookieMatcher {
    fn from_proto(at: &FieldPath<'_>, proto: pb::CookieMatcher) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::CookieMatcher { supported { name, string_match, invert_match } });
        let field = at.field("string_match");
        Ok(Self {
            cookie: at.field("name").not_empty(name)?,
            test: StringMatcher::from_proto(&field, field.required(string_match)?)?,
            invert: invert_match,
        })
    }
}

impl PathMatch {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::route_match::PathSpecifier>,
    ) -> Result<Self, Rejection> {
        use pb::route_match::PathSpecifier;
        choices!(pb::route_match::PathSpecifier {
            supported { Prefix, Path, SafeRegex, PathSeparatedPrefix, ConnectMatcher }
            refused {
                PathMatchPolicy: "no path matcher extension exists here",
            }
        });
        Ok(match proto {
            Some(PathSpecifier::Prefix(prefix)) => Self::Prefix(prefix),
            Some(PathSpecifier::Path(path)) => Self::Exact(path),
            Some(PathSpecifier::SafeRegex(regex)) => Self::Regex(safe_regex(&at.field("safe_regex"), regex)?),
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
                let field = at.field("path_separated_prefix");
                // Source: route_components.proto, `path_separated_prefix` and its pattern.
                if !prefix.starts_with('/')
                    || prefix.len() < 2
                    || prefix.ends_with('/')
                    || prefix.contains(['?', '#'])
                {
                    return Err(field.reject(format!(
                        "{prefix:?} must begin with `/`, not end with it, and have no query"
                    )));
                }
                Self::SeparatedPrefix(prefix)
            }
            Some(PathSpecifier::ConnectMatcher(proto)) => {
                verdicts!((), proto => pb::route_match::ConnectMatcher {});
                Self::Connect
            }
            Some(PathSpecifier::PathMatchPolicy(_)) => {
                return Err(at.field("path_match_policy").reject("is not supported"));
            }
            None => {
                return Err(at.reject(
                    "has no path: write prefix, path, safe_regex, path_separated_prefix or connect_matcher",
                ));
            }
        })
    }
}

/// Converts a query parameter and how it is judged.
pub(crate) fn query_parameter(
    at: &FieldPath<'_>,
    proto: pb::QueryParameterMatcher,
) -> Result<(String, QueryMatch), Rejection> {
    verdicts!(at, proto => pb::QueryParameterMatcher { supported { name, query_parameter_match_specifier } });
    choices!(QueryParameterMatchSpecifier {
        supported { StringMatch, PresentMatch }
    });
    let name = at.field("name").not_empty(name)?;
    match query_parameter_match_specifier {
        None => Ok((name, QueryMatch::Present(true))),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => Ok((name, QueryMatch::Present(present))),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => Ok((
            name,
            QueryMatch::Value(StringMatcher::from_proto(&at.field("string_match"), matcher)?),
        )),
    }
}

fn action_from_proto(
    at: &FieldPath<'_>,
    proto: Option<pb::route::Action>,
    body_bytes: u32,
) -> Result<RouteAction, Rejection> {
    use pb::route::Action;
    choices!(pb::route::Action {
        supported { Route, Redirect, DirectResponse }
        refused {
            FilterAction: "no filter here answers instead of a route",
            NonForwardingAction: "it is for gRPC servers without a proxy",
        }
    });
    match proto {
        Some(Action::Route(proto)) => Ok(RouteAction::Forward(Box::new(super::forward::from_proto(
            &at.field("route"),
            proto,
        )?))),
        Some(Action::DirectResponse(proto)) => {
            direct_response(&at.field("direct_response"), proto, body_bytes)
        }
        Some(Action::Redirect(proto)) => Ok(RouteAction::Redirect(Box::new(Redirect::from_proto(
            &at.field("redirect"),
            proto,
        )?))),
        Some(Action::FilterAction(_)) => Err(at.field("filter_action").reject("is not supported")),
        Some(Action::NonForwardingAction(_)) => {
            Err(at.field("non_forwarding_action").reject("is not supported"))
        }
        None => Err(at.reject("has no action: write route, redirect or direct_response")),
    }
}

fn direct_response(
    at: &FieldPath<'_>,
    proto: pb::DirectResponseAction,
    body_bytes: u32,
) -> Result<RouteAction, Rejection> {
    verdicts!(at, proto => pb::DirectResponseAction {
        supported { status, body, body_format }
    });
    let status = at.field("status").status(status, 200..=599)?;
    let field = at.field("body");
    let body = match DataSource::from_proto(&field, body)? {
        None => Vec::new(),
        Some(DataSource::Inline(bytes)) => bytes,
        Some(DataSource::File(_)) => return Err(field.reject("must be written inline")),
    };
    if body.len() > body_bytes as usize {
        return Err(field.reject(format!(
            "has {} bytes, more than the {body_bytes} that are allowed",
            body.len()
        )));
    }
    let format = body_format.map(|proto| BodyFormat::from_proto(&at.field("body_format"), proto));
    Ok(RouteAction::DirectResponse {
        status,
        body,
        format: format.transpose()?.map(Box::new),
    })
}
