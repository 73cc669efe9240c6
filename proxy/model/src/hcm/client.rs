//! How the address of a client is found that comes by way of others. Source: http_connection_manager.proto `xff_num_trusted_hops`,
//! `original_ip_detection_extensions`; envoy/extensions/http/original_ip_detection.
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::{
    custom_header::v3::CustomHeaderConfig,
    xff::v3::{XffConfig, XffTrustedCidrs},
};
use ipnet::IpNet;

use crate::address;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::route;
use crate::scalar::Wrapped;

const FINDERS: [&str; 2] = [types::CLIENT_BY_XFF, types::CLIENT_BY_HEADER];

/// One way to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFinder {
    /// In `x-forwarded-for`.
    ForwardedFor {
        /// As many addresses at its end are those of proxies that are trusted.
        trusted_hops: u32,
        /// Addresses at its end are passed over that are in one of these, if the connection comes from one of them; empty: by number.
        trusted_ranges: Vec<IpNet>,
        /// Who connected is not added to it.
        keeps_forwarded_for: bool,
    },
    /// In a header.
    Header {
        /// Lower case.
        name: String,
        /// What it says decides who is internal.
        is_trusted: bool,
        /// Requests without an address in it are answered with this, 400..=599; `None`: they go on.
        refusal_status: Option<u16>,
    },
}

impl ClientFinder {
    /// Converts a list, of which the first that finds an address counts.
    pub(super) fn list(
        at: FieldPath<'_>,
        protos: Vec<core::TypedExtensionConfig>,
    ) -> Result<Vec<Self>, Rejection> {
        let protos = protos.into_iter().enumerate();
        protos
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }

    fn from_proto(at: &FieldPath<'_>, proto: core::TypedExtensionConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::TypedExtensionConfig {
            supported { typed_config }
            partly { name: "in rejections; what an extension does is in the type of its config" }
        });
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, typed_config)?;
        match config.type_name.as_str() {
            types::CLIENT_BY_XFF => Self::by_forwarded_for(&at, config.message(&at)?),
            types::CLIENT_BY_HEADER => Self::by_header(&at, config.message(&at)?),
            _ => Err(config.reject(&at, "original ip detection", &name, &FINDERS)),
        }
    }

    fn by_forwarded_for(at: &FieldPath<'_>, proto: XffConfig) -> Result<Self, Rejection> {
        verdicts!((), proto => XffConfig { supported { xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append } });
        let field = at.field("xff_trusted_cidrs");
        if xff_trusted_cidrs.is_some() && xff_num_trusted_hops > 0 {
            return Err(field.reject("only one of it and xff_num_trusted_hops can be set"));
        }
        verdicts!((), xff_trusted_cidrs.unwrap_or_default() => XffTrustedCidrs { supported { cidrs } });
        Ok(Self::ForwardedFor {
            trusted_hops: xff_num_trusted_hops,
            trusted_ranges: address::ranges(field.field("cidrs"), cidrs)?,
            keeps_forwarded_for: skip_xff_append.value().unwrap_or(true),
        })
    }

    fn by_header(at: &FieldPath<'_>, proto: CustomHeaderConfig) -> Result<Self, Rejection> {
        verdicts!((), proto => CustomHeaderConfig {
            supported { header_name, allow_extension_to_set_address_as_trusted, reject_with_status }
        });
        let refusal = reject_with_status.map(|proto| {
            verdicts!((), proto => envoy_types::pb::envoy::r#type::v3::HttpStatus { supported { code } });
            // As Envoy: what is no error becomes one.
            u16::try_from(code)
                .ok()
                .filter(|code| (400..600).contains(code))
                .unwrap_or(403)
        });
        Ok(Self::Header {
            name: route::header_name(&at.field("header_name"), &header_name)?,
            is_trusted: allow_extension_to_set_address_as_trusted,
            refusal_status: refusal,
        })
    }
}
