//! Routes that an earlier one of their virtual host hides.
//!
//! The first route that matches is taken, whatever comes after it. Only what is certain is said: a route hides another if its path covers
//! the other's and the other asks for everything else that it asks for.
//! Source: envoy/config/route/v3/route_components.proto `RouteMatch`.
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{RouteMatch, VirtualHost};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _};

use super::finding::{Findings, Rule};
use super::resource::Resource;
use super::walk::At;

/// Pairs are compared.
const MAX_ROUTES: usize = 3000;

/// Judges the routes of a virtual host; passes over any other message.
pub(super) fn check(message: &DynamicMessage, at: &At<'_>, resource: &Resource, findings: &mut Findings) {
    if message.descriptor().full_name() != "envoy.config.route.v3.VirtualHost" {
        return;
    }
    let Ok(host) = VirtualHost::decode(message.encode_to_vec().as_slice()) else {
        return;
    };
    // A matcher tree has no order.
    if host.matcher.is_some() || host.routes.len() > MAX_ROUTES {
        return;
    }
    let matches: Vec<Option<&RouteMatch>> = host.routes.iter().map(|route| route.r#match.as_ref()).collect();
    for (index, later) in matches.iter().enumerate() {
        let Some(later) = later else { continue };
        let hides = |earlier: &Option<&RouteMatch>| earlier.is_some_and(|earlier| covers(earlier, later));
        let Some(earlier) = matches.iter().take(index).position(hides) else {
            continue;
        };
        let reason = format!("no request gets here: routes[{earlier}] matches everything that this one does");
        let path = at.field(&format!("routes[{index}]"));
        findings.add(Rule::ShadowedRoute, resource, &path, reason, None);
    }
}

/// Every request that matches `later` matches `earlier`.
fn covers(earlier: &RouteMatch, later: &RouteMatch) -> bool {
    let RouteMatch {
        path_specifier,
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        grpc,
        tls_context,
        dynamic_metadata,
        cookies,
        filter_state,
    } = earlier;
    let folds = case_sensitive.as_ref().is_some_and(|value| !value.value);
    let later_folds = later.case_sensitive.as_ref().is_some_and(|value| !value.value);
    // One that distinguishes letters lets some of the other's requests through.
    (folds || !later_folds)
        && covers_path(path_specifier.as_ref(), later.path_specifier.as_ref(), folds)
        && runtime_fraction.is_none()
        && headers.iter().all(|header| later.headers.contains(header))
        && query_parameters
            .iter()
            .all(|parameter| later.query_parameters.contains(parameter))
        && (grpc.is_none() || later.grpc.is_some())
        && (tls_context.is_none() || *tls_context == later.tls_context)
        && dynamic_metadata
            .iter()
            .all(|metadata| later.dynamic_metadata.contains(metadata))
        && cookies.iter().all(|cookie| later.cookies.contains(cookie))
        && filter_state
            .iter()
            .all(|state| later.filter_state.contains(state))
}

fn covers_path(earlier: Option<&PathSpecifier>, later: Option<&PathSpecifier>, folds: bool) -> bool {
    use PathSpecifier::{ConnectMatcher, Path, PathSeparatedPrefix, Prefix, SafeRegex};
    let fold = |text: &str| {
        if folds {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }
    };
    match (earlier, later) {
        (None, _) | (_, None) => false,
        // Ordinary matchers do not see CONNECT, and this one sees nothing else.
        (Some(ConnectMatcher(_)), later) => matches!(later, Some(ConnectMatcher(_))),
        (_, Some(ConnectMatcher(_))) => false,
        (Some(Prefix(prefix)), Some(_)) if prefix == "/" => true,
        (Some(Prefix(prefix)), Some(Prefix(text) | Path(text) | PathSeparatedPrefix(text))) => {
            fold(text).starts_with(&fold(prefix))
        }
        (Some(PathSeparatedPrefix(prefix)), Some(PathSeparatedPrefix(text) | Path(text))) => {
            let text = fold(text);
            text.strip_prefix(&fold(prefix))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (Some(Path(path)), Some(Path(text))) => fold(path) == fold(text),
        (Some(SafeRegex(regex)), Some(_)) if matches!(regex.regex.as_str(), ".*" | "/.*") => true,
        (Some(SafeRegex(regex)), Some(SafeRegex(text))) => regex.regex == text.regex,
        (earlier, later) => earlier == later,
    }
}
