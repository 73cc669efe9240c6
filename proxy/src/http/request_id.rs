//! `x-request-id`: a UUIDv4 whose 15th character tells the trace decision. Source: Envoy `UUIDRequestIDExtension`
//! (request_id/uuid.proto) and `ConnectionManagerUtility::mutateTracingRequestHeader`.
use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::tracing::Tracing;

/// The header.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const X_ENVOY_FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");

/// Where the decision stands.
const TRACE_BYTE: usize = 14;
const NO_TRACE: u8 = b'4';
const SAMPLED: u8 = b'9';
const FORCED: u8 = b'a';
const CLIENT: u8 = b'b';
const UUID_LEN: usize = 36;

/// A new random UUIDv4 in text.
pub(crate) fn generate(random: &mut fastrand::Rng) -> [u8; UUID_LEN] {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    /// Where each byte's two digits stand.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut bytes = random.u128(..).to_be_bytes();
    // RFC 9562 §5.4: version 4, variant 0b10.
    bytes[6] = 0x40 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let mut text = [b'-'; UUID_LEN];
    for (byte, place) in bytes.into_iter().zip(PLACES) {
        text[place] = HEX[usize::from(byte >> 4)];
        text[place + 1] = HEX[usize::from(byte & 0x0f)];
    }
    text
}

/// Adds an id when there is none (or always when `replace`), then marks it with the trace decision.
pub(crate) fn set(
    headers: &mut HeaderMap,
    generate_missing: bool,
    tracing: Option<&Tracing>,
    random: &mut fastrand::Rng,
) {
    if generate_missing && !headers.contains_key(X_REQUEST_ID) {
        let mut id = generate(random);
        if let Some(reason) = tracing.and_then(|tracing| decide(&id, headers, tracing, random)) {
            id[TRACE_BYTE] = reason;
        }
        if let Ok(value) = HeaderValue::from_bytes(&id) {
            headers.insert(X_REQUEST_ID, value);
        }
        return;
    }
    let Some(tracing) = tracing else { return };
    let Some(id) = headers
        .get(X_REQUEST_ID)
        .and_then(|id| <[u8; UUID_LEN]>::try_from(id.as_bytes()).ok())
    else {
        return;
    };
    if let Some(reason) = decide(&id, headers, tracing, random) {
        let mut id = id;
        id[TRACE_BYTE] = reason;
        if let Ok(value) = HeaderValue::from_bytes(&id) {
            headers.insert(X_REQUEST_ID, value);
        }
    }
}

/// The new trace mark; `None`: it stays. `id` decides random sampling, so that every hop decides alike.
fn decide(
    id: &[u8; UUID_LEN],
    headers: &HeaderMap,
    tracing: &Tracing,
    random: &mut fastrand::Rng,
) -> Option<u8> {
    let number = std::str::from_utf8(id.get(..8)?)
        .ok()
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())?;
    let ticket = number % 10_000;
    let before = id[TRACE_BYTE];
    let mut reason = before;
    if !matches!(before, SAMPLED | FORCED | CLIENT) {
        if headers.contains_key(X_CLIENT_TRACE_ID) && random.u32(0..10_000) < tracing.client_sampling {
            reason = CLIENT;
        } else if headers.contains_key(X_ENVOY_FORCE_TRACE) {
            reason = FORCED;
        } else if ticket < tracing.random_sampling {
            reason = SAMPLED;
        }
    }
    if matches!(reason, SAMPLED | FORCED | CLIENT) && ticket >= tracing.overall_sampling {
        reason = NO_TRACE;
    }
    (reason != before).then_some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracing(random_sampling: u32) -> Tracing {
        Tracing {
            client_sampling: 10_000,
            random_sampling,
            overall_sampling: 10_000,
            spans: Box::default(),
        }
    }

    fn id_after(given: Option<&'static str>, tracing: Option<&Tracing>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(X_REQUEST_ID, HeaderValue::from_static(given));
        }
        set(&mut headers, true, tracing, &mut fastrand::Rng::with_seed(3));
        headers
            .get(X_REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn a_missing_id_becomes_a_version_4_uuid() {
        let id = id_after(None, None);
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
        assert!(
            id.bytes()
                .enumerate()
                .all(|(i, b)| (b == b'-') == matches!(i, 8 | 13 | 18 | 23)),
            "{id}"
        );
    }

    #[test]
    fn sampling_follows_the_id_itself() {
        let low = "00000001-0000-4000-8000-000000000000";
        assert_eq!(id_after(Some(low), Some(&tracing(100))).as_bytes()[14], b'9');
        let high = "0000270f-0000-4000-8000-000000000000";
        assert_eq!(id_after(Some(high), Some(&tracing(100))), high);
    }

    #[test]
    fn an_id_that_is_no_uuid_is_left_alone() {
        assert_eq!(id_after(Some("abc"), Some(&tracing(10_000))), "abc");
    }
}
