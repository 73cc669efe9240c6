//! Bodies that are compressed and decompressed here, with gzip.
//! Source: envoy/extensions/filters/http/{compressor,decompressor}/v3/*.proto, envoy/extensions/compression/gzip/*/v3/gzip.proto.
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::compression::gzip::{
    compressor::v3::{self as gzip, gzip::CompressionLevel},
    decompressor::v3 as gunzip,
};
use envoy_types::pb::envoy::extensions::filters::http::compressor::v3::{
    self as pb, compressor::CommonDirectionConfig, compressor::RequestDirectionConfig,
    compressor::ResponseDirectionConfig, compressor_per_route::Override,
};
use envoy_types::pb::envoy::extensions::filters::http::decompressor::v3 as de;

use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::StringMatcher;
use crate::scalar::Wrapped;

/// Compresses requests and responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressor {
    /// Of its counters.
    pub compressor_name: String,
    /// How.
    pub gzip: GzipLevel,
    /// Which requests; `None`: none.
    pub compressed_requests: Option<CompressedDirection>,
    /// Which responses.
    pub compressed_responses: CompressedDirection,
    /// Counters of responses have `response.` in their names.
    pub names_response: bool,
    /// Responses with an `etag` stay as they are.
    pub keeps_etag: bool,
    /// A strong `etag` becomes a weak one; else it goes.
    pub weakens_etag: bool,
    /// The upstream is not asked for compressed responses.
    pub removes_accept_encoding: bool,
    /// Responses with these statuses stay as they are.
    pub uncompressed_statuses: Vec<u16>,
}

/// What of one direction is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressedDirection {
    /// Where routes say nothing.
    pub compresses: bool,
    /// Shorter bodies stay as they are, where the length is known; Envoy's default 30.
    pub min_bytes: u32,
    /// The types of content, without parameters, one has to match; what has no type is compressed, too.
    pub content_types: ContentTypes,
}

/// Types of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentTypes {
    /// Those that are text, in lower case.
    Listed(Vec<String>),
    /// One has to match.
    Matching(Vec<StringMatcher>),
}

/// How gzip compresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GzipLevel {
    /// 0..=9; `None`: the library's.
    pub level: Option<u32>,
    /// 9..=15; Envoy's default 12.
    pub window_bits: u8,
}

/// What a route says about a compressor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteCompressor {
    /// Nothing is compressed.
    Off,
    /// Responses are.
    Overrides {
        /// See [`Compressor::removes_accept_encoding`]; `None`: as the filter says.
        removes_accept_encoding: Option<bool>,
        /// The filter compresses responses, whatever it says itself.
        compresses_responses: bool,
    },
}

/// Source: Envoy `CompressorFilterConfig`, `DefaultContentTypes`.
const CONTENT_TYPES: [&str; 18] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
];

impl Compressor {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Compressor) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Compressor {
            supported {
                content_length, content_type, disable_on_etag_header, remove_accept_encoding_header, runtime_enabled,
                request_direction_config, response_direction_config,
            }
            partly { compressor_library: "gzip; others are refused" }
            inert { choose_first: "there is nothing but gzip to choose" }
        });
        let (compressor_name, gzip) = library(&at.field("compressor_library"), compressor_library)?;
        let names_response = response_direction_config.is_some();
        // As Envoy: the older fields count where there is none of the newer.
        let proto = response_direction_config.unwrap_or(ResponseDirectionConfig {
            common_config: Some(CommonDirectionConfig {
                enabled: runtime_enabled,
                min_content_length: content_length,
                content_type,
                content_type_matcher: Vec::new(),
            }),
            disable_on_etag_header,
            remove_accept_encoding_header,
            ..ResponseDirectionConfig::default()
        });
        let at_response = at.field("response_direction_config");
        verdicts!(at_response, proto => ResponseDirectionConfig {
            supported {
                common_config, disable_on_etag_header, weaken_etag_on_compress, remove_accept_encoding_header,
                uncompressible_response_codes,
            }
            unsupported { status_header_enabled: "traffic" }
        });
        let statuses = uncompressible_response_codes.into_iter().enumerate();
        let statuses = statuses.map(|(index, code)| {
            let at = at_response.field("uncompressible_response_codes").index(index);
            at.status(code, 200..=599)
        });
        let request = request_direction_config.map(|proto| {
            let at = at.field("request_direction_config");
            verdicts!(at, proto => RequestDirectionConfig { supported { common_config } });
            CompressedDirection::from_proto(&at.field("common_config"), common_config)
        });
        Ok(Self {
            compressor_name,
            gzip,
            compressed_requests: request.transpose()?,
            compressed_responses: CompressedDirection::from_proto(
                &at_response.field("common_config"),
                common_config,
            )?,
            names_response,
            keeps_etag: disable_on_etag_header && !weaken_etag_on_compress,
            weakens_etag: weaken_etag_on_compress,
            removes_accept_encoding: remove_accept_encoding_header,
            uncompressed_statuses: statuses.collect::<Result<_, _>>()?,
        })
    }
}

impl CompressedDirection {
    fn from_proto(at: &FieldPath<'_>, proto: Option<CommonDirectionConfig>) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => CommonDirectionConfig {
            supported { enabled, min_content_length, content_type, content_type_matcher }
        });
        let matchers = content_type_matcher.into_iter().enumerate();
        let matchers = matchers.map(|(index, proto)| {
            StringMatcher::from_proto(&at.field("content_type_matcher").index(index), proto)
        });
        let matchers = matchers.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            compresses: is_enabled(enabled),
            min_bytes: min_content_length.value().unwrap_or(30),
            content_types: match (matchers.is_empty(), content_type.is_empty()) {
                (false, _) => ContentTypes::Matching(matchers),
                (true, false) => ContentTypes::Listed(content_type),
                (true, true) => ContentTypes::Listed(CONTENT_TYPES.map(str::to_owned).to_vec()),
            },
        })
    }
}

/// On, unless it says otherwise.
fn is_enabled(proto: Option<core::RuntimeFeatureFlag>) -> bool {
    let Some(proto) = proto else { return true };
    verdicts!((), proto => core::RuntimeFeatureFlag {
        supported { default_value }
        inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
    });
    default_value.value().unwrap_or(true)
}

fn opened(
    at: &FieldPath<'_>,
    proto: Option<core::TypedExtensionConfig>,
    wanted: &'static str,
) -> Result<(String, TypedConfig), Rejection> {
    verdicts!(at, at.required(proto)? => core::TypedExtensionConfig { supported { name, typed_config } });
    let field = at.field("typed_config");
    let config = TypedConfig::open(&field, typed_config)?;
    if config.type_name != wanted {
        return Err(config.reject(&field, "compression library", &name, &[wanted]));
    }
    Ok((at.field("name").not_empty(name)?, config))
}

fn library(
    at: &FieldPath<'_>,
    proto: Option<core::TypedExtensionConfig>,
) -> Result<(String, GzipLevel), Rejection> {
    let (name, config) = opened(at, proto, types::GZIP_COMPRESSOR)?;
    let at = at.field("typed_config");
    verdicts!(at, config.message(&at)? => gzip::Gzip {
        supported { compression_level, window_bits }
        inert {
            memory_level: "trades memory for ratio; what comes out means the same",
            compression_strategy: "trades time for ratio; what comes out means the same",
            chunk_size: "sizes of pieces inside; what comes out means the same",
        }
    });
    let level: CompressionLevel = at.field("compression_level").enumeration(compression_level)?;
    let bits = at
        .field("window_bits")
        .within(window_bits.value().unwrap_or(12), 9..=15)?;
    Ok((
        name,
        GzipLevel {
            level: u32::try_from(level as i32).ok().filter(|level| *level > 0),
            window_bits: u8::try_from(bits).unwrap_or(15),
        },
    ))
}

impl RouteCompressor {
    /// Converts the settings of a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::CompressorPerRoute) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::CompressorPerRoute { supported { r#override } });
        choices!(Override { supported { Disabled, Overrides } });
        let proto = match at.required(r#override)? {
            Override::Disabled(true) => return Ok(Self::Off),
            Override::Disabled(false) => return Err(at.field("disabled").reject("must be true")),
            Override::Overrides(proto) => proto,
        };
        let at = at.field("overrides");
        verdicts!(at, proto => pb::CompressorOverrides {
            supported { response_direction_config }
            refused { compressor_library: "ignoring it would compress with another library" }
        });
        let compresses_responses = response_direction_config.is_some();
        verdicts!((), response_direction_config.unwrap_or_default() => pb::ResponseDirectionOverrides {
            supported { remove_accept_encoding_header }
        });
        Ok(Self::Overrides {
            removes_accept_encoding: remove_accept_encoding_header.value(),
            compresses_responses,
        })
    }
}

/// Decompresses requests and responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decompressor {
    /// Of its counters.
    pub decompressor_name: String,
    /// A piece that becomes so many times as large is not decompressed any further; Envoy's default 100.
    pub max_inflate_ratio: u32,
    /// Of requests.
    pub decompressed_requests: DecompressedDirection,
    /// Of responses.
    pub decompressed_responses: DecompressedDirection,
    /// The upstream is told that responses may be compressed.
    pub asks_for_compression: bool,
}

/// What of one direction is decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressedDirection {
    /// It is.
    pub is_on: bool,
    /// `no-transform` counts for nothing.
    pub ignores_no_transform: bool,
}

impl Decompressor {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: de::Decompressor) -> Result<Self, Rejection> {
        verdicts!(at, proto => de::Decompressor {
            supported { request_direction_config, response_direction_config }
            partly { decompressor_library: "gzip; others are refused" }
        });
        let field = at.field("decompressor_library");
        let (decompressor_name, config) = opened(&field, decompressor_library, types::GZIP_DECOMPRESSOR)?;
        let field = field.field("typed_config");
        verdicts!(field, config.message(&field)? => gunzip::Gzip {
            supported { max_inflate_ratio }
            inert {
                window_bits: "any window is read",
                chunk_size: "sizes of pieces inside; what comes out means the same",
            }
        });
        let ratio = max_inflate_ratio.value().unwrap_or(100);
        verdicts!((), request_direction_config.unwrap_or_default() => de::decompressor::RequestDirectionConfig {
            supported { common_config, advertise_accept_encoding }
        });
        let request = DecompressedDirection::from_proto(common_config);
        verdicts!((), response_direction_config.unwrap_or_default() => de::decompressor::ResponseDirectionConfig {
            supported { common_config }
        });
        Ok(Self {
            decompressor_name,
            max_inflate_ratio: field.field("max_inflate_ratio").within(ratio, 1..=1032)?,
            decompressed_requests: request,
            decompressed_responses: DecompressedDirection::from_proto(common_config),
            asks_for_compression: advertise_accept_encoding.value().unwrap_or(true),
        })
    }
}

impl DecompressedDirection {
    fn from_proto(proto: Option<de::decompressor::CommonDirectionConfig>) -> Self {
        verdicts!((), proto.unwrap_or_default() => de::decompressor::CommonDirectionConfig {
            supported { enabled, ignore_no_transform_header }
        });
        Self {
            is_on: is_enabled(enabled),
            ignores_no_transform: ignore_no_transform_header,
        }
    }
}
