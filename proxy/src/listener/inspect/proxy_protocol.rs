//! The listener filter `envoy.filters.listener.proxy_protocol`: who the client is, as the balancer in front of us says.
//! Source: Envoy docs, Proxy Protocol listener filter; checked beside it in tests/it/alone/proxy_protocol.rs.
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf as _;
use outrigger_model::listener::{ProxyProtocol as Config, TlvRule};
use outrigger_model::metadata::{Metadata, Value};
use outrigger_model::proxy_protocol::ProxyVersion;
use tokio::net::TcpStream;

use super::{InspectError, Inspection, read_more};
use crate::net::proxy_protocol::{Header, Kind, Reading, Tlv, Version, may_become, read, recognise};
use crate::stats::{Counter, Registry};

/// The filter at run time.
#[derive(Debug)]
pub(super) struct ProxyProtocol {
    config: Config,
    stats: Stats,
}

/// `proxy_proto.[<stat_prefix>.]*`. Source: Envoy docs, Proxy Protocol, statistics.
#[derive(Debug)]
struct Stats {
    /// Of all filters together; older than the others.
    downstream_cx_proxy_proto_error: Counter,
    not_found_allowed: Counter,
    not_found_disallowed: Counter,
    v1: VersionStats,
    v2: VersionStats,
}

#[derive(Debug)]
struct VersionStats {
    found: Counter,
    disallowed: Counter,
    error: Counter,
}

impl Stats {
    fn new(registry: &Registry, prefix: &str) -> Self {
        let root = match prefix {
            "" => "proxy_proto".to_owned(),
            prefix => format!("proxy_proto.{prefix}"),
        };
        let version = |version: &str| {
            let counter = |name: &str| registry.counter(format!("{root}.versions.{version}.{name}"));
            VersionStats {
                found: counter("found"),
                disallowed: counter("disallowed"),
                error: counter("error"),
            }
        };
        Self {
            downstream_cx_proxy_proto_error: registry.counter("downstream_cx_proxy_proto_error"),
            not_found_allowed: registry.counter(format!("{root}.not_found_allowed")),
            not_found_disallowed: registry.counter(format!("{root}.not_found_disallowed")),
            v1: version("v1"),
            v2: version("v2"),
        }
    }

    fn of(&self, version: Version) -> &VersionStats {
        match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        }
    }
}

impl ProxyProtocol {
    pub(super) fn new(config: &Config, registry: &Registry) -> Self {
        Self {
            config: config.clone(),
            stats: Stats::new(registry, &config.stat_prefix),
        }
    }

    /// Reads the header and takes it off the buffer.
    pub(super) async fn run(
        &self,
        stream: &mut TcpStream,
        local: SocketAddr,
        found: &mut Inspection,
    ) -> Result<(), InspectError> {
        loop {
            let bytes = &found.buffer[..];
            if bytes.is_empty() {
                read_more(stream, &mut found.buffer).await?;
                continue;
            }
            if self.config.allows_no_header && !self.may_have_header(bytes) {
                self.stats.not_found_allowed.inc();
                return Ok(());
            }
            match recognise(bytes) {
                Kind::Unclear => {}
                Kind::Neither => {
                    self.stats.not_found_disallowed.inc();
                    self.stats.downstream_cx_proxy_proto_error.inc();
                    return Err(InspectError::Refused("the client sent no PROXY header"));
                }
                Kind::Header(version) if !self.is_allowed(version) => {
                    let stats = self.stats.of(version);
                    stats.found.inc();
                    stats.disallowed.inc();
                    return Err(InspectError::Refused(
                        "the client sent a PROXY header of a version that is not allowed",
                    ));
                }
                Kind::Header(version) => match read(version, bytes) {
                    Reading::NeedMore => {}
                    Reading::Wrong => {
                        self.stats.of(version).error.inc();
                        self.stats.downstream_cx_proxy_proto_error.inc();
                        return Err(InspectError::Refused(
                            "the client sent a PROXY header that breaks the protocol's rules",
                        ));
                    }
                    Reading::Whole(header) => {
                        self.stats.of(version).found.inc();
                        self.take(header, local, found);
                        return Ok(());
                    }
                },
            }
            read_more(stream, &mut found.buffer).await?;
        }
    }

    fn is_allowed(&self, version: Version) -> bool {
        let version = match version {
            Version::V1 => ProxyVersion::V1,
            Version::V2 => ProxyVersion::V2,
        };
        !self.config.disallowed_versions.contains(&version)
    }

    /// As Envoy, what begins like a header of a version that is not allowed is no header where there need not be one.
    fn may_have_header(&self, bytes: &[u8]) -> bool {
        let versions = [Version::V1, Version::V2].into_iter();
        versions
            .filter(|version| self.is_allowed(*version))
            .any(|version| may_become(version, bytes))
    }

    fn take(&self, header: Header, local: SocketAddr, found: &mut Inspection) {
        found.buffer.advance(header.length);
        if let Some((source, destination)) = header.ends {
            found.source = Some(source);
            if destination != found.original_dst.unwrap_or(local) {
                found.original_dst = Some(destination);
            }
        }
        self.note(&header.tlvs, found);
        let kept = header
            .tlvs
            .into_iter()
            .filter(|tlv| self.config.kept_tlvs.has(tlv.kind));
        found.proxy_tlvs = Some(kept.collect());
    }

    /// What rules ask for becomes metadata; of several values for one key the first counts, as in Envoy.
    fn note(&self, tlvs: &[Tlv], found: &mut Inspection) {
        for tlv in tlvs {
            // Envoy keeps one rule for each type, the last.
            let mut rules = self.config.tlv_rules.iter();
            let Some(rule) = rules.rfind(|rule| rule.tlv_type == tlv.kind) else {
                continue;
            };
            let Metadata(namespaces) = &mut **found.metadata.get_or_insert_default();
            let fields = namespaces.entry(rule.namespace.clone()).or_default();
            fields
                .entry(rule.metadata_key.clone())
                .or_insert_with(|| Value::String(written(rule, &tlv.value)));
        }
    }
}

fn written(rule: &TlvRule, value: &[u8]) -> String {
    if rule.is_base64 {
        return STANDARD.encode(value);
    }
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}
