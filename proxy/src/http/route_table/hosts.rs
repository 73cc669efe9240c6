//! Which virtual host an authority belongs to: exact name, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.
//!
//! Hash maps, one for each length of a wildcard, so that it costs the same however many hosts there are.
//! Source: route_components.proto `VirtualHost.domains`; Envoy `RouteMatcher::findVirtualHost`.
use std::collections::HashMap;

/// Domains and the index of the virtual host of each.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, usize>,
    suffixes: Wildcards,
    prefixes: Wildcards,
    any: Option<usize>,
    ignore_port: bool,
}

/// By length, the longest first.
#[derive(Debug, Default)]
struct Wildcards(Vec<(usize, SameLength)>);

/// What stands beside the star, and the virtual host.
type SameLength = HashMap<Box<[u8]>, usize>;

impl Hosts {
    /// No domain yet.
    pub(super) fn new(ignore_port: bool) -> Self {
        Self {
            ignore_port,
            ..Self::default()
        }
    }

    /// Adds a domain of a virtual host.
    pub(super) fn add(&mut self, domain: &str, index: usize) {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            self.any = Some(index);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.add(suffix, index);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.add(prefix, index);
        } else {
            self.exact.insert(domain.into(), index);
        }
    }

    /// The virtual host of an authority.
    pub(super) fn find(&self, authority: &[u8]) -> Option<usize> {
        let host = std::str::from_utf8(authority).ok()?;
        // A header that names the host may be missing.
        if host.is_empty() {
            return self.any;
        }
        let host = if self.ignore_port {
            without_port(host)
        } else {
            host
        };
        let lowered;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = host.to_ascii_lowercase();
            lowered.as_str()
        } else {
            host
        };
        self.exact
            .get(host)
            .copied()
            .or_else(|| self.suffixes.find(host, |host, len| host.get(host.len() - len..)))
            .or_else(|| self.prefixes.find(host, |host, len| host.get(..len)))
            .or(self.any)
    }
}

impl Wildcards {
    fn add(&mut self, text: &str, index: usize) {
        let place = self.0.partition_point(|(len, _)| *len > text.len());
        if self.0.get(place).is_none_or(|(len, _)| *len != text.len()) {
            self.0.insert(place, (text.len(), SameLength::new()));
        }
        if let Some((_, same_length)) = self.0.get_mut(place) {
            same_length.insert(text.as_bytes().into(), index);
        }
    }

    /// `part` is that of a host which a wildcard of this length stands beside. The star stands for at least one character.
    fn find<'h>(&self, host: &'h str, part: impl Fn(&'h [u8], usize) -> Option<&'h [u8]>) -> Option<usize> {
        let fitting = self.0.iter().filter(|(len, _)| *len < host.len());
        let mut found = fitting.filter_map(|(len, all)| all.get(part(host.as_bytes(), *len)?));
        found.next().copied()
    }
}

/// What stands before the last colon that is not inside of brackets; whether a number follows does not matter. Source: Envoy
/// `HeaderUtility::getPortStart`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}
