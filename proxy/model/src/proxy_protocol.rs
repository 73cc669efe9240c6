//! What the PROXY protocol's two sides have in common. Source: envoy/config/core/v3/proxy_protocol.proto.
use envoy_types::pb::envoy::config::core::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};

/// Of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

impl ProxyVersion {
    pub(crate) fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            pb::proxy_protocol_config::Version::V1 => Self::V1,
            pb::proxy_protocol_config::Version::V2 => Self::V2,
        })
    }
}

/// Some TLVs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlvFilter {
    /// All.
    All,
    /// Those of these types; there may be none.
    Types(Vec<u8>),
}

impl TlvFilter {
    /// `None`: no TLV.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::ProxyProtocolPassThroughTlVs>,
    ) -> Result<Self, Rejection> {
        use pb::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
        let Some(proto) = proto else {
            return Ok(Self::Types(Vec::new()));
        };
        verdicts!(at, proto => pb::ProxyProtocolPassThroughTlVs { supported { match_type, tlv_type } });
        let kinds = tlv_type.into_iter().enumerate();
        let kinds = kinds.map(|(index, kind)| self::tlv_type(&at.field("tlv_type").index(index), kind));
        let kinds = kinds.collect::<Result<_, _>>()?;
        Ok(match at.field("match_type").enumeration(match_type)? {
            PassTlVsMatchType::IncludeAll => Self::All,
            PassTlVsMatchType::Include => Self::Types(kinds),
        })
    }

    /// Whether it is one of them.
    pub fn has(&self, kind: u8) -> bool {
        match self {
            Self::All => true,
            Self::Types(types) => types.contains(&kind),
        }
    }
}

/// The header that a server gets before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHeader {
    /// Its version.
    pub proxy_version: ProxyVersion,
    /// Which of the client's TLVs go on in version 2.
    pub passed_tlvs: TlvFilter,
    /// TLVs of our own in version 2: type and value. The client's of these types do not go on.
    pub added_tlvs: Vec<(u8, Vec<u8>)>,
}

impl UpstreamHeader {
    /// Source: envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.proto `config`.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::ProxyProtocolConfig>,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::ProxyProtocolConfig {
            supported { version, pass_through_tlvs, added_tlvs }
        });
        let field = at.field("added_tlvs");
        let added = added_tlvs.into_iter().enumerate().map(|(index, proto)| {
            let at = field.index(index);
            verdicts!(at, proto => pb::TlvEntry {
                supported { r#type, value }
                refused { format_string: "ignoring it would send an empty value" }
            });
            Ok((tlv_type(&at.field("type"), r#type)?, value))
        });
        Ok(Self {
            proxy_version: ProxyVersion::from_proto(&at.field("version"), version)?,
            passed_tlvs: TlvFilter::from_proto(&at.field("pass_through_tlvs"), pass_through_tlvs)?,
            added_tlvs: added.collect::<Result<_, _>>()?,
        })
    }
}

/// The type of a TLV.
pub(crate) fn tlv_type(at: &FieldPath<'_>, kind: u32) -> Result<u8, Rejection> {
    u8::try_from(kind).map_err(|_| at.reject(format!("{kind} is no type of a TLV; the largest is 255")))
}
