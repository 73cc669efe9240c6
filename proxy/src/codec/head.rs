//! Request and response heads, the same for every HTTP version.
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use outrigger_model::cluster::ResponseHeadLimits;

/// A request head. `authority` is what counts; a Host header that came stays in `headers` only to keep its place in the order.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    /// The method.
    pub(crate) method: Method,
    /// Path and query in origin form; `*` for server-wide OPTIONS, `/` for CONNECT, which has none.
    pub(crate) path: PathAndQuery,
    /// `:authority` or Host; empty when an HTTP/1.0 request had none.
    pub(crate) authority: HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The version that the client spoke.
    pub(crate) version: Version,
    /// Everything else; no connection-level header, but for `connection` and `upgrade` of an upgrade.
    pub(crate) headers: HeaderMap,
    /// The client asks for another protocol (RFC 9110 §7.8) or, with CONNECT, for a tunnel (§9.3.6); its body is whatever comes next on the
    /// connection.
    pub(crate) is_upgrade: bool,
}

/// A response head.
#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    /// The status.
    pub(crate) status: StatusCode,
    /// Headers; no connection-level one.
    pub(crate) headers: HeaderMap,
}

impl RequestHead {
    /// The value of `name`, which may be a pseudo-header.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":method" => Some(self.method.as_str().as_bytes()),
            ":path" if self.method == Method::CONNECT => None,
            ":path" => Some(self.path.as_str().as_bytes()),
            ":authority" | "host" => Some(self.authority.as_bytes()),
            ":scheme" => Some(self.scheme.as_bytes()),
            _ => self.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// The request's content type begins with `application/grpc` as gRPC defines it (Envoy `Grpc::Common::isGrpcRequestHeaders`).
    pub(crate) fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }
}

/// Authority and path of a request target. RFC 9112 §3.2.2: an absolute-form target, as `:authority`, wins over `host`.
pub(super) fn authority_and_path(target: Uri, host: Option<HeaderValue>) -> (HeaderValue, PathAndQuery) {
    let authority = target
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
        .or(host)
        .unwrap_or_else(|| HeaderValue::from_static(""));
    let path = target.into_parts().path_and_query;
    (authority, path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// `content-type` is `application/grpc`, alone or followed by `+` or `;`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| rest.is_empty() || matches!(rest.first(), Some(b'+' | b';')))
}

/// `connection` names `upgrade`, and there is one that is not to `h2c`, which nobody here speaks that way. Source: Envoy `Utility::isUpgrade`,
/// `ServerConnectionImpl::onHeadersComplete`.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let Some(to) = headers.get(http::header::UPGRADE) else {
        return false;
    };
    !to.as_bytes().eq_ignore_ascii_case(b"h2c")
        && connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(http::header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Removes what belongs to one connection: RFC 9110 §7.6.1, and what `connection` names. Most heads have one such header or none, so
/// names are looked at before anything is looked up.
pub(crate) fn remove_connection_headers(headers: &mut HeaderMap) {
    type Names = smallvec::SmallVec<[HeaderName; 2]>;
    let present: Names = headers
        .keys()
        .filter(|name| is_of_connection(name))
        .cloned()
        .collect();
    if present.is_empty() {
        return;
    }
    let named: Names = connection_tokens(headers)
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != http::header::TE)
        .collect();
    let present = present.into_iter().filter(|name| name != http::header::TE);
    for name in named.into_iter().chain(present) {
        headers.remove(name);
    }
    keep_only_trailers(headers);
}

/// The same without what `connection` names, which Envoy leaves in responses.
pub(super) fn remove_own_connection_headers(headers: &mut HeaderMap) {
    headers.remove(http::header::CONNECTION);
    remove_connection_headers(headers);
}

fn is_of_connection(name: &HeaderName) -> bool {
    let names = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    names.contains(&name.as_str())
}

/// Takes out of trailers what has no place in them (RFC 9110 §6.5.1): what is about the connection they came on, which HTTP/2 refuses to
/// send, framing and routing.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    const NEVER: [HeaderName; 2] = [http::header::CONTENT_LENGTH, http::header::HOST];
    NEVER.iter().for_each(|name| {
        trailers.remove(name);
    });
    remove_own_connection_headers(trailers);
}

/// RFC 9113 §8.2.2: `te` may say only `trailers`; as Envoy, other codings are taken out.
fn keep_only_trailers(headers: &mut HeaderMap) {
    let Some(te) = headers.get(http::header::TE) else {
        return;
    };
    let trailers = te
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii() == b"trailers");
    if trailers {
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(http::header::TE);
    }
}

/// A response head is beyond its limits; `usual_bytes` where they say nothing of bytes, `status_bytes` what `:status` takes of them where
/// the version has it as a header. Source: Envoy 1.40, `Http1::ConnectionImpl::checkMaxHeadersSize`, `Http2::ConnectionImpl::saveHeader`.
pub(super) fn is_beyond(
    limits: &ResponseHeadLimits,
    usual_bytes: u32,
    status_bytes: Option<usize>,
    headers: &HeaderMap,
) -> bool {
    let is_more = |count: usize, most: u32| count > usize::try_from(most).unwrap_or(usize::MAX);
    let lengths = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let bytes = lengths.sum::<usize>() + status_bytes.unwrap_or(0);
    is_more(
        headers.len() + usize::from(status_bytes.is_some()),
        limits.most_headers,
    ) || is_more(bytes, limits.most_bytes.unwrap_or(usual_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_named_by_connection_go_too() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, X-Hop, te"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("te", HeaderValue::from_static("gzip, trailers"));
        headers.insert("x-end", HeaderValue::from_static("1"));
        remove_connection_headers(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["te", "x-end"]
        );
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn trailers_say_nothing_of_connection_framing_or_host() {
        let mut trailers = HeaderMap::new();
        let bad = "connection transfer-encoding keep-alive upgrade proxy-connection te content-length host";
        for name in bad.split(' ').chain(["x-end"]) {
            trailers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static("1, close"),
            );
        }
        clean_trailers(&mut trailers);
        assert_eq!(
            trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-end"]
        );
    }

    #[test]
    fn grpc_is_told_by_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }
}
