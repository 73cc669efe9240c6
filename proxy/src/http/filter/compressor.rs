//! Compresses requests and responses.
//! Source: envoy/extensions/filters/http/compressor/v3/compressor.proto; Envoy `CompressorFilter`.
mod accept;
mod decompressor;
mod gzip;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::http_filter::compressor::{
    CompressedDirection, Compressor, ContentTypes, GzipLevel, RouteCompressor,
};

use self::accept::{Choice, choose};
pub(super) use self::decompressor::DecompressorFilter;
use self::gzip::{ByteCounts, Gzip};
use super::settings::RouteConfig;
use super::{Decode, Decoding, Encoding, Filter, Scope};
use crate::codec::Body;
use crate::http::matcher::StringMatcher;
use crate::stats::Counter;

const GZIP: &str = "gzip";

/// The filter at its place.
#[derive(Debug)]
pub(super) struct CompressorFilter {
    gzip: GzipLevel,
    request: Option<Direction>,
    response: Direction,
    request_stats: DirectionStats,
    keeps_etag: bool,
    weakens_etag: bool,
    removes_accept_encoding: bool,
    uncompressed_statuses: Box<[u16]>,
    stats: ResponseStats,
}

#[derive(Debug)]
struct Direction {
    is_enabled: bool,
    min_bytes: u64,
    types: Types,
    stats: DirectionStats,
}

#[derive(Debug)]
enum Types {
    Listed(Box<[String]>),
    Matching(Box<[StringMatcher]>),
}

#[derive(Debug, Clone)]
struct DirectionStats {
    compressed: Counter,
    not_compressed: Counter,
    content_length_too_small: Counter,
    bytes: ByteCounts,
}

/// Of responses only, without `response.` in their names.
#[derive(Debug)]
struct ResponseStats {
    no_accept_header: Counter,
    header_identity: Counter,
    header_compressor_used: Counter,
    header_wildcard: Counter,
    header_not_valid: Counter,
    not_compressed_etag: Counter,
    /// Another encoding goes first: there is no other here.
    _header_compressor_overshadowed: Counter,
}

impl DirectionStats {
    fn new(counter: &dyn Fn(&str) -> Counter, direction: &str) -> Self {
        let counter = |name: &str| counter(&format!("{direction}{name}"));
        Self {
            compressed: counter("compressed"),
            not_compressed: counter("not_compressed"),
            content_length_too_small: counter("content_length_too_small"),
            bytes: ByteCounts {
                compressed: counter("total_compressed_bytes"),
                uncompressed: counter("total_uncompressed_bytes"),
            },
        }
    }
}

impl Direction {
    fn new(config: &CompressedDirection, stats: DirectionStats) -> Result<Self, regex::Error> {
        Ok(Self {
            is_enabled: config.compresses,
            min_bytes: u64::from(config.min_bytes),
            types: match &config.content_types {
                ContentTypes::Listed(types) => Types::Listed(types.as_slice().into()),
                ContentTypes::Matching(matchers) => {
                    let matchers = matchers.iter().map(StringMatcher::new);
                    Types::Matching(matchers.collect::<Result<_, _>>()?)
                }
            },
            stats,
        })
    }

    /// What has no length may be long.
    fn is_long_enough(&self, headers: &HeaderMap) -> bool {
        let Some(length) = headers.get(CONTENT_LENGTH) else {
            return true;
        };
        let length: Option<u64> = length.to_str().ok().and_then(|length| length.parse().ok());
        let is_long_enough = length.is_some_and(|length| length >= self.min_bytes);
        if !is_long_enough {
            self.stats.content_length_too_small.inc();
        }
        is_long_enough
    }

    fn takes_type(&self, headers: &HeaderMap) -> bool {
        let Some(content_type) = headers.get(CONTENT_TYPE) else {
            return true;
        };
        let bytes = content_type.as_bytes();
        let bytes = bytes
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if bytes.is_empty() {
            return true;
        }
        match &self.types {
            Types::Listed(types) => types.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(bytes)),
            Types::Matching(matchers) => matchers.iter().any(|one| one.matches(bytes)),
        }
    }

    fn compress(&self, gzip: &GzipLevel, body: Body, headers: &mut HeaderMap) -> Body {
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(GZIP));
        self.stats.compressed.inc();
        body.transformed(Box::new(Gzip::new(gzip, self.stats.bytes.clone())))
    }
}

/// All values of a header in one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let mut all = String::from_utf8_lossy(values.next()?.as_bytes()).into_owned();
    for value in values {
        all.push(',');
        all.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(all)
}

/// `cache-control` says that nobody may change the body.
fn must_stay(headers: &HeaderMap) -> bool {
    joined(headers, &CACHE_CONTROL).is_some_and(|value| {
        let mut tokens = value.split(',');
        tokens.any(|token| token.trim().eq_ignore_ascii_case("no-transform"))
    })
}

impl CompressorFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &Compressor, scope: &Scope<'_>) -> Result<Self, regex::Error> {
        let counter =
            |name: &str| scope.counter(&format!("compressor.{}.{GZIP}.{name}", config.compressor_name));
        let request_stats = DirectionStats::new(&counter, "request.");
        let response = if config.names_response { "response." } else { "" };
        let request = config.compressed_requests.as_ref();
        let request = request.map(|request| Direction::new(request, request_stats.clone()));
        Ok(Self {
            gzip: config.gzip.clone(),
            request: request.transpose()?,
            response: Direction::new(
                &config.compressed_responses,
                DirectionStats::new(&counter, response),
            )?,
            request_stats,
            keeps_etag: config.keeps_etag,
            weakens_etag: config.weakens_etag,
            removes_accept_encoding: config.removes_accept_encoding,
            uncompressed_statuses: config.uncompressed_statuses.as_slice().into(),
            stats: ResponseStats {
                no_accept_header: counter("no_accept_header"),
                header_identity: counter("header_identity"),
                header_compressor_used: counter("header_compressor_used"),
                header_wildcard: counter("header_wildcard"),
                header_not_valid: counter("header_not_valid"),
                not_compressed_etag: counter("not_compressed_etag"),
                _header_compressor_overshadowed: counter("header_compressor_overshadowed"),
            },
        })
    }

    /// Whether responses are compressed for a route, and whether `accept-encoding` goes.
    fn for_route(&self, config: Option<&RouteConfig>) -> (bool, bool) {
        match config {
            Some(RouteConfig::Compressor(RouteCompressor::Off)) => (false, self.removes_accept_encoding),
            Some(RouteConfig::Compressor(RouteCompressor::Overrides {
                removes_accept_encoding,
                compresses_responses,
            })) => (
                *compresses_responses || self.response.is_enabled,
                removes_accept_encoding.unwrap_or(self.removes_accept_encoding),
            ),
            _ => (self.response.is_enabled, self.removes_accept_encoding),
        }
    }

    /// Counts what the client accepts; true: gzip.
    fn is_accepted(&self, response: &Encoding<'_>) -> bool {
        let mut accepted = response.state.accepted_encodings.iter().rev();
        let Some((_, accepted)) = accepted.find(|(place, _)| *place == response.place) else {
            self.stats.no_accept_header.inc();
            return false;
        };
        let choice = choose(accepted, GZIP, self.response.takes_type(&response.head.headers));
        match choice {
            Choice::Named => self.stats.header_compressor_used.inc(),
            Choice::Wildcard => self.stats.header_wildcard.inc(),
            Choice::Identity => self.stats.header_identity.inc(),
            Choice::Invalid => self.stats.header_not_valid.inc(),
        }
        choice.is_used()
    }

    /// The response is one that could be compressed for somebody.
    fn is_compressible(&self, response: &Encoding<'_>) -> bool {
        let headers = &response.head.headers;
        let is_upgrade = response
            .stream
            .request_if_any()
            .is_some_and(|request| request.is_upgrade);
        if is_upgrade || !self.response.takes_type(headers) || must_stay(headers) {
            return false;
        }
        if self.keeps_etag && headers.contains_key(ETAG) {
            self.stats.not_compressed_etag.inc();
            return false;
        }
        !headers.contains_key(CONTENT_ENCODING)
            && !self
                .uncompressed_statuses
                .contains(&response.head.status.as_u16())
    }

    /// A strong validator is of the bytes as they were.
    fn clean_etag(&self, headers: &mut HeaderMap) {
        let Some(etag) = headers.get(ETAG) else { return };
        let bytes = etag.as_bytes();
        if bytes.starts_with(b"W/") || bytes.starts_with(b"w/") {
            return;
        }
        match HeaderValue::from_bytes(&[b"W/", bytes].concat()) {
            Ok(weak) if self.weakens_etag => drop(headers.insert(ETAG, weak)),
            _ => drop(headers.remove(ETAG)),
        }
    }
}

/// Caches are told that other clients get another body.
fn vary(headers: &mut HeaderMap) {
    const ACCEPT: &str = "Accept-Encoding";
    let all = match joined(headers, &VARY).filter(|all| !all.is_empty()) {
        None => Ok(HeaderValue::from_static(ACCEPT)),
        Some(all) if all.split(',').any(|token| token.trim() == ACCEPT) => return,
        Some(all) => HeaderValue::from_str(&format!("{all}, {ACCEPT}")),
    };
    if let Ok(all) = all {
        headers.insert(VARY, all);
    }
}

impl Filter for CompressorFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let headers = &mut request.head.headers;
        if let Some(accepted) = joined(headers, &ACCEPT_ENCODING) {
            request
                .state
                .accepted_encodings
                .push((request.place, accepted.into()));
        }
        let (compresses, removes) = self.for_route(request.config);
        if compresses && removes {
            headers.remove(ACCEPT_ENCODING);
        }
        let is_wanted = |direction: &&Direction| {
            direction.is_enabled
                && direction.is_long_enough(headers)
                && direction.takes_type(headers)
                && !headers.contains_key(CONTENT_ENCODING)
        };
        let body = request.stream.body.take();
        let direction = self
            .request
            .as_ref()
            .filter(|_| body.is_some() && !request.head.is_upgrade);
        match (direction.filter(is_wanted), body) {
            (Some(direction), Some(body)) => {
                let body = direction.compress(&self.gzip, *body, headers);
                request.stream.body.replace(Some(Box::new(body)));
            }
            (_, body) => {
                self.request_stats.not_compressed.inc();
                request.stream.body.replace(body);
            }
        }
        Decode::Continue
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let (is_on, _) = self.for_route(response.config);
        let is_candidate = is_on && self.response.is_long_enough(&response.head.headers);
        let is_compressible = is_candidate && self.is_compressible(response);
        let compresses =
            !response.body.is_empty() && is_candidate && self.is_accepted(response) && is_compressible;
        let headers = &mut response.head.headers;
        if compresses {
            self.clean_etag(headers);
            let body = std::mem::replace(response.body, Body::empty());
            *response.body = self.response.compress(&self.gzip, body, headers);
        } else {
            self.response.stats.not_compressed.inc();
        }
        if is_compressible {
            vary(headers);
        }
    }
}
