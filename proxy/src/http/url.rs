//! Absolute URLs in header values. Source: Envoy `Http::Utility::Url`.

/// The parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AbsoluteUrl<'t> {
    /// As written.
    pub(super) scheme: &'t str,
    /// Host and port, without the user.
    pub(super) authority: &'t str,
    /// With query, without fragment; maybe empty.
    pub(super) path: &'t str,
}

impl<'t> AbsoluteUrl<'t> {
    /// `None`: it is none.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Who the user is, is between it and the client.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let parsed: http::uri::Authority = authority.parse().ok()?;
        (!parsed.host().is_empty()).then_some(Self {
            scheme,
            authority,
            path: path.split('#').next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_and_host_make_an_absolute_url() {
        let check = |text: &str, expected: Option<(&str, &str, &str)>| {
            let url = AbsoluteUrl::parse(text);
            let parts = url.map(|url| (url.scheme, url.authority, url.path));
            assert_eq!(parts, expected, "{text}");
        };
        check("http://a/b?c", Some(("http", "a", "/b?c")));
        check("HTTPS://a:8443", Some(("HTTPS", "a:8443", "")));
        check("http://u:p@[::1]:80/#f", Some(("http", "[::1]:80", "/")));
        check("/b", None);
        check("//a/b", None);
        check("", None);
        check("null", None);
        check("http:///b", None);
        check("ht tp://a", None);
    }
}
