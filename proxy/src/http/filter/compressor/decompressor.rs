//! Decompresses requests and responses.
//! Source: envoy/extensions/filters/http/decompressor/v3/decompressor.proto; Envoy `DecompressorFilter`.
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue};
use outrigger_model::http_filter::compressor::{DecompressedDirection, Decompressor};

use super::gzip::{ByteCounts, Gunzip};
use super::{GZIP, joined, must_stay};
use crate::codec::Body;
use crate::http::filter::{Decode, Decoding, Encoding, Filter, Scope};
use crate::stats::Counter;

/// The filter at its place.
#[derive(Debug)]
pub(in crate::http::filter) struct DecompressorFilter {
    max_ratio: u32,
    data_errors: Counter,
    /// Errors that zlib has a name for, and that do not happen here.
    _other_errors: [Counter; 5],
    request: Direction,
    response: Direction,
    asks: bool,
}

#[derive(Debug)]
struct Direction {
    config: DecompressedDirection,
    decompressed: Counter,
    not_decompressed: Counter,
    bytes: ByteCounts,
}

impl Direction {
    fn new(config: DecompressedDirection, counter: impl Fn(&str) -> Counter) -> Self {
        Self {
            config,
            decompressed: counter("decompressed"),
            not_decompressed: counter("not_decompressed"),
            bytes: ByteCounts {
                compressed: counter("total_compressed_bytes"),
                uncompressed: counter("total_uncompressed_bytes"),
            },
        }
    }
}

impl DecompressorFilter {
    pub(in crate::http::filter) fn new(config: &Decompressor, scope: &Scope<'_>) -> Self {
        let counter = |name: &str| {
            scope.counter(&format!(
                "decompressor.{}.{GZIP}.{name}",
                config.decompressor_name
            ))
        };
        let error = |name: &str| counter(&format!("decompressor_library.zlib_{name}"));
        Self {
            max_ratio: config.max_inflate_ratio,
            data_errors: error("data_error"),
            _other_errors: ["errno", "stream_error", "mem_error", "buf_error", "version_error"].map(error),
            request: Direction::new(config.decompressed_requests, |name| {
                counter(&format!("request.{name}"))
            }),
            response: Direction::new(config.decompressed_responses, |name| {
                counter(&format!("response.{name}"))
            }),
            asks: config.asks_for_compression && config.decompressed_responses.is_on,
        }
    }

    fn decompress(&self, direction: &Direction, body: Body, headers: &mut HeaderMap) -> Body {
        let config = &direction.config;
        let stays = !config.is_on || (!config.ignores_no_transform && must_stay(headers));
        let encodings = joined(headers, &CONTENT_ENCODING).filter(|_| !stays);
        // As Envoy, which takes the first for the one that was applied last.
        let Some(rest) = encodings.as_deref().and_then(after_gzip) else {
            direction.not_decompressed.inc();
            return body;
        };
        direction.decompressed.inc();
        headers.remove(CONTENT_LENGTH);
        match HeaderValue::from_str(rest) {
            Ok(rest) if !rest.is_empty() => drop(headers.insert(CONTENT_ENCODING, rest)),
            _ => drop(headers.remove(CONTENT_ENCODING)),
        }
        let (errors, bytes) = (self.data_errors.clone(), direction.bytes.clone());
        body.transformed(Box::new(Gunzip::new(self.max_ratio, errors, bytes)))
    }
}

/// What is left of a list of encodings that begins with gzip.
fn after_gzip(encodings: &str) -> Option<&str> {
    let (first, rest) = encodings.split_once(',').unwrap_or((encodings, ""));
    first.trim().eq_ignore_ascii_case(GZIP).then(|| rest.trim())
}

impl Filter for DecompressorFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let headers = &mut request.head.headers;
        if self.asks {
            let all = match joined(headers, &ACCEPT_ENCODING).filter(|all| !all.is_empty()) {
                Some(all) => HeaderValue::from_str(&format!("{all},{GZIP}")),
                None => Ok(HeaderValue::from_static(GZIP)),
            };
            if let Ok(all) = all {
                headers.insert(ACCEPT_ENCODING, all);
            }
        }
        let body = request.stream.body.take();
        if let Some(body) = body {
            let body = match request.head.is_upgrade {
                true => *body,
                false => self.decompress(&self.request, *body, headers),
            };
            request.stream.body.replace(Some(Box::new(body)));
        }
        Decode::Continue
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        if response.body.is_empty() {
            return;
        }
        let body = std::mem::replace(response.body, Body::empty());
        *response.body = self.decompress(&self.response, body, &mut response.head.headers);
    }
}
