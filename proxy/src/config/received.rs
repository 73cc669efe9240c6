//! The bytes of one resource, kept for whoever asks what was received.
//!
//! A listener of Istio takes eleven kilobytes, nearly all of which the others of its kind have too; a thousand of them are a sixth of a
//! sidecar's memory, and nobody looks at them but `/config_dump`, the history and the snapshot. So they may be kept compressed, with a
//! digest by which the same bytes are known again. Whoever sends two resources of one digest is the control plane, and harms itself.
use bytes::Bytes;
use twox_hash::XxHash3_128;

/// Below, compression saves less than what it is kept with.
const WORTH_PACKING: usize = 1 << 10;
/// The quickest; higher ones save a twentieth.
const LEVEL: i32 = 1;

/// Bytes as received.
#[derive(Debug, Clone)]
pub(super) enum Received {
    /// As they are.
    Plain(Bytes),
    /// Compressed.
    Packed {
        digest: u128,
        length: usize,
        packed: Box<[u8]>,
    },
}

impl Received {
    /// To be kept small.
    pub(super) fn packed(bytes: Bytes) -> Self {
        if bytes.len() < WORTH_PACKING {
            return Self::Plain(bytes);
        }
        match zstd::bulk::compress(&bytes, LEVEL) {
            Ok(packed) if packed.len() < bytes.len() => Self::Packed {
                digest: XxHash3_128::oneshot(&bytes),
                length: bytes.len(),
                packed: packed.into(),
            },
            _ => Self::Plain(bytes),
        }
    }

    /// They are these.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Plain(own) => own == bytes,
            Self::Packed { digest, length, .. } => {
                *length == bytes.len() && *digest == XxHash3_128::oneshot(bytes)
            }
        }
    }

    /// Themselves.
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Plain(bytes) => bytes.clone(),
            Self::Packed { length, packed, .. } => zstd::bulk::decompress(packed, *length)
                .map(Bytes::from)
                .unwrap_or_else(|error| {
                    // Memory is damaged: what is in force stays so, and is shown empty.
                    tracing::error!(%error, "bytes kept for /config_dump cannot be read");
                    Bytes::new()
                }),
        }
    }
}

impl From<Bytes> for Received {
    fn from(bytes: Bytes) -> Self {
        Self::Plain(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many bytes are kept.
    fn check(bytes: Vec<u8>) -> usize {
        let received = Received::packed(bytes.clone().into());
        assert_eq!(received.bytes(), bytes);
        assert!(received.is(&bytes));
        let mut other = bytes.clone();
        other.push(0);
        assert!(!received.is(&other));
        if let Some(first) = other.first_mut() {
            *first ^= 1;
        }
        other.pop();
        assert_eq!(received.is(&other), bytes.is_empty());
        match received {
            Received::Plain(bytes) => bytes.len(),
            Received::Packed { packed, .. } => packed.len(),
        }
    }

    #[test]
    fn what_repeats_is_kept_small_and_comes_back_as_it_was() {
        assert_eq!(check(Vec::new()), 0);
        assert_eq!(check(b"too short to be packed".to_vec()), 22);
        assert!(check(b"envoy.filters.http.router ".repeat(400)) < 200);
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = (0..5000).map(|_| random.u8(..)).collect();
        assert_eq!(check(noise), 5000, "larger when packed");
    }
}
