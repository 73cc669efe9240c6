//! Where a client is sent: the `location` of redirects, and of direct responses that are some.
//! Source: Envoy `Http::Utility::newUri` and `Router::Filter::decodeHeaders`.
use std::borrow::Cow;

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use outrigger_model::route as model;

use super::local_reply::LocalReply;
use crate::codec::RequestHead;

/// What a redirect answers. The route has rewritten the path of `request` before, if it was to; `made` is what it made of the request
/// instead.
pub(super) fn reply(config: &model::Redirect, made: Option<&str>, request: &RequestHead) -> LocalReply {
    // One of five numbers, all valid.
    let status = StatusCode::from_u16(config.status).unwrap_or(StatusCode::FOUND);
    let mut reply = LocalReply::new(status, None, "direct_response", "");
    reply
        .headers
        .extend(location(status, Some((config, made)), request));
    reply
}

/// The header of a response that has one: 201 and 3xx.
pub(super) fn location(
    status: StatusCode,
    config: Option<(&model::Redirect, Option<&str>)>,
    request: &RequestHead,
) -> Option<(http::HeaderName, HeaderValue)> {
    // As Envoy: what has no path leads nowhere.
    if !(status.is_redirection() || status == StatusCode::CREATED) || request.method == Method::CONNECT {
        return None;
    }
    let uri = uri(config, request)?;
    Some((LOCATION, HeaderValue::from_str(&uri).ok()?))
}

fn uri(config: Option<(&model::Redirect, Option<&str>)>, request: &RequestHead) -> Option<String> {
    let (config, made) = config.unzip();
    let scheme = config
        .and_then(|config| config.scheme.as_deref())
        .unwrap_or(request.scheme);
    let port = config.and_then(|config| config.port);
    let keeps_port = config.is_some_and(|config| config.keeps_usual_port);
    let host = match config.and_then(|config| config.host.as_deref()) {
        Some(host) => host,
        None if keeps_port => request.authority.to_str().ok()?,
        None => own_host(request, scheme, port.is_some())?,
    };
    let path = path(config, made.flatten(), request.path.as_str());
    Some(match port {
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    })
}

/// The request's host. Its port goes when another one comes, or when it is what the old scheme has anyway.
fn own_host<'r>(request: &'r RequestHead, scheme: &str, has_port: bool) -> Option<&'r str> {
    let host = request.authority.to_str().ok()?;
    let colon = match host.starts_with('[') {
        true => host.rfind("]:").map(|bracket| bracket + 1),
        false => host.rfind(':'),
    };
    let Some((name, port)) = colon.and_then(|colon| host.split_at_checked(colon)) else {
        return Some(host);
    };
    // `request.scheme` is what x-forwarded-proto says.
    let is_usual = matches!((request.scheme, port), ("https", ":443") | ("http", ":80"));
    Some(match has_port || (scheme != request.scheme && is_usual) {
        true => name,
        false => host,
    })
}

fn path<'a>(config: Option<&'a model::Redirect>, made: Option<&'a str>, requested: &'a str) -> Cow<'a, str> {
    let Some(config) = config else {
        return requested.into();
    };
    let whole = match &config.path {
        Some(model::PathRewrite::Whole(path)) => Some(path.as_str()),
        _ => made,
    };
    let new = match whole {
        // A query of its own comes along whatever `strip_query` says.
        Some(path) if path.contains('?') => return path.into(),
        Some(path) => match requested.split_once('?') {
            Some((_, query)) => format!("{path}?{query}").into(),
            None => Cow::from(path),
        },
        None => Cow::from(requested),
    };
    match (config.strip_query, new.find('?')) {
        (true, Some(query)) => new.get(..query).unwrap_or_default().to_owned().into(),
        _ => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method, Version};

    const NOTHING: model::Redirect = model::Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: 301,
        strip_query: false,
        keeps_usual_port: false,
    };

    #[track_caller]
    fn check(config: &model::Redirect, authority: &'static str, path: &str, expected: &str) {
        let request = RequestHead {
            method: Method::GET,
            path: path.parse().unwrap(),
            authority: HeaderValue::from_static(authority),
            scheme: "http",
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            is_upgrade: false,
        };
        let reply = reply(config, None, &request);
        let (name, value) = reply.headers.first().unwrap();
        assert_eq!((name, value.to_str().unwrap()), (&LOCATION, expected));
    }

    #[test]
    fn what_a_redirect_does_not_change_stays() {
        check(&NOTHING, "a:8080", "/x?y", "http://a:8080/x?y");
    }

    #[test]
    fn another_scheme_takes_the_old_ones_port_away() {
        let https = model::Redirect {
            scheme: Some("https".into()),
            ..NOTHING
        };
        check(&https, "a:80", "/", "https://a/");
        check(&https, "a:81", "/", "https://a:81/");
        check(&https, "[::1]:80", "/", "https://[::1]/");
        check(&https, "[::1]", "/", "https://[::1]/");
        let as_is = model::Redirect {
            keeps_usual_port: true,
            ..https
        };
        check(&as_is, "a:80", "/x?y", "https://a:80/x?y");
    }

    #[test]
    fn another_port_takes_the_place_of_the_requests() {
        let port = model::Redirect {
            port: Some(8443),
            ..NOTHING
        };
        check(&port, "a:80", "/", "http://a:8443/");
        let host = model::Redirect {
            host: Some("b".into()),
            ..port
        };
        check(&host, "a:80", "/", "http://b:8443/");
    }

    #[test]
    fn a_path_keeps_the_query_unless_it_has_its_own() {
        let to = |path: &str, strip_query| model::Redirect {
            path: Some(model::PathRewrite::Whole(path.to_owned())),
            strip_query,
            ..NOTHING
        };
        check(&to("/n", false), "a", "/x?y", "http://a/n?y");
        check(&to("/n", true), "a", "/x?y", "http://a/n");
        check(&to("/n?z", true), "a", "/x?y", "http://a/n?z");
        let strip = model::Redirect {
            strip_query: true,
            ..NOTHING
        };
        check(&strip, "a", "/x?y", "http://a/x");
    }
}
