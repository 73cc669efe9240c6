//! The listener filter that reads the header of the PROXY protocol.
//! Source: envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto.
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::{self as pb, proxy_protocol};

use crate::field::{FieldPath, Rejection, verdicts};
use crate::proxy_protocol::{ProxyVersion, TlvFilter, tlv_type};

/// Who the client is, as whoever is in front of us says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Connections without a header pass.
    pub allows_no_header: bool,
    /// TLVs of version 2 that become metadata of the connection.
    pub tlv_rules: Vec<TlvRule>,
    /// TLVs that go upstream.
    pub kept_tlvs: TlvFilter,
    /// Versions that are refused.
    pub disallowed_versions: Vec<ProxyVersion>,
    /// Stats are `proxy_proto.<stat_prefix>.`, or `proxy_proto.` if empty.
    pub stat_prefix: String,
}

/// A TLV that becomes metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlvRule {
    /// Of the TLV.
    pub tlv_type: u8,
    /// Of the metadata.
    pub namespace: String,
    /// In the namespace.
    pub metadata_key: String,
    /// The value is written in base64; else as text, with `!` for bytes that are none.
    pub is_base64: bool,
}

/// Namespace of metadata when a rule names none.
const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";

impl ProxyProtocol {
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: pb::ProxyProtocol) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ProxyProtocol {
            supported {
                rules, allow_requests_without_proxy_protocol, pass_through_tlvs, disallowed_versions, stat_prefix,
            }
            partly { tlv_location: "DYNAMIC_METADATA; nothing here reads filter state, so rules for it are listed" }
        });
        let rules = rules.into_iter().enumerate();
        let rules = rules.map(|(index, proto)| TlvRule::from_proto(&at.field("rules").index(index), proto));
        let mut tlv_rules = rules.collect::<Result<Vec<_>, _>>()?;
        let location = at.field("tlv_location");
        if location.enumeration::<proxy_protocol::TlvLocation>(tlv_location)?
            == proxy_protocol::TlvLocation::FilterState
        {
            location.problem("FILTER_STATE has no effect here: nothing reads filter state");
            tlv_rules.clear();
        }
        let field = at.field("disallowed_versions");
        let versions = disallowed_versions.into_iter().enumerate();
        let versions =
            versions.map(|(index, version)| ProxyVersion::from_proto(&field.index(index), version));
        Ok(Self {
            allows_no_header: allow_requests_without_proxy_protocol,
            tlv_rules,
            kept_tlvs: TlvFilter::from_proto(&at.field("pass_through_tlvs"), pass_through_tlvs)?,
            disallowed_versions: versions.collect::<Result<_, _>>()?,
            stat_prefix,
        })
    }
}

impl TlvRule {
    fn from_proto(at: &FieldPath<'_>, proto: proxy_protocol::Rule) -> Result<Self, Rejection> {
        use proxy_protocol::key_value_pair::ValueStringEncoding;
        verdicts!(at, proto => proxy_protocol::Rule { supported { tlv_type, on_tlv_present } });
        let kind = self::tlv_type(&at.field("tlv_type"), tlv_type)?;
        let at = at.field("on_tlv_present");
        verdicts!(at, on_tlv_present.unwrap_or_default() => proxy_protocol::KeyValuePair {
            supported { metadata_namespace, key, value_string_encoding }
        });
        let encoding = at.field("value_string_encoding");
        Ok(Self {
            tlv_type: kind,
            namespace: if metadata_namespace.is_empty() {
                NAMESPACE.to_owned()
            } else {
                metadata_namespace
            },
            metadata_key: at.field("key").not_empty(key)?,
            is_base64: encoding.enumeration::<ValueStringEncoding>(value_string_encoding)?
                == ValueStringEncoding::Base64,
        })
    }
}
