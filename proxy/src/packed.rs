//! Bytes of a resource at rest, in a seventh of their length.
//!
//! What a control plane sends of one type looks alike: four thousand clusters differ in a name, a port and a label. Each is kept as LZ4
//! with an earlier one, the example, as its dictionary, which takes a microsecond to make and less to undo. One that does not resemble
//! the example is the example of those after it. Knows nothing of what the bytes mean.
use bytes::Bytes;
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use twox_hash::XxHash3_128;

/// Longer ones are kept as they are: they change often, and who compares or decodes them needs all of them at once.
const LONGEST: usize = 16 << 10;

/// What takes more than this part of its own length does not resemble the example.
const RESEMBLING: usize = 4;

/// Packs one resource after the other.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    example: Bytes,
}

/// Bytes, packed if that made them smaller.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    bytes: Bytes,
    /// `None`: they are not packed.
    packing: Option<Packing>,
}

#[derive(Debug, Clone)]
struct Packing {
    /// What they are packed with.
    example: Bytes,
    /// Of what was packed: what comes again is found without undoing it.
    hash: u128,
}

impl Packer {
    /// `bytes` at rest.
    pub(crate) fn pack(&mut self, bytes: Bytes) -> Packed {
        if bytes.len() > LONGEST {
            return Packed::whole(bytes);
        }
        let mut packed = compress_prepend_size_with_dict(&bytes, &self.example);
        packed.shrink_to_fit();
        let length = packed.len();
        let example = self.example.clone();
        if length * RESEMBLING > bytes.len() {
            self.example = bytes.clone();
        }
        if length >= bytes.len() {
            return Packed::whole(bytes);
        }
        let hash = XxHash3_128::oneshot(&bytes);
        Packed {
            bytes: packed.into(),
            packing: Some(Packing { example, hash }),
        }
    }
}

impl Packed {
    /// `bytes` as they are.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { bytes, packing: None }
    }

    /// What was packed.
    pub(crate) fn bytes(&self) -> Bytes {
        let Some(packing) = &self.packing else {
            return self.bytes.clone();
        };
        match decompress_size_prepended_with_dict(&self.bytes, &packing.example) {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                // Nobody but `pack` makes them.
                tracing::error!(%error, "a resource at rest cannot be read; please report this");
                Bytes::new()
            }
        }
    }
}

impl PartialEq<[u8]> for Packed {
    fn eq(&self, other: &[u8]) -> bool {
        match &self.packing {
            None => *self.bytes == *other,
            Some(packing) => packing.hash == XxHash3_128::oneshot(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters of a mesh, as far as bytes go.
    fn resource(number: usize) -> Bytes {
        let name = format!("outbound|80||service-{number}.default.svc.cluster.local");
        let labels: String = (0..20)
            .map(|label| format!("label-{label}: value-{label}; "))
            .collect();
        format!("{name} {labels} {name} {number}").into()
    }

    #[test]
    fn what_is_packed_comes_back_as_it_was() {
        let mut packer = Packer::default();
        let noise: Vec<u8> = (0..3_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut all: Vec<Bytes> = (0..50).map(resource).collect();
        all.insert(7, Bytes::new());
        all.insert(9, noise.into());
        all.insert(11, vec![b'x'; LONGEST + 1].into());
        all.insert(13, vec![b'x'; LONGEST].into());
        let packed: Vec<Packed> = all.iter().map(|bytes| packer.pack(bytes.clone())).collect();
        for (packed, bytes) in packed.iter().zip(&all) {
            assert_eq!(packed.bytes(), bytes);
            assert!(*packed == **bytes);
            assert!(*packed != b"something else"[..]);
        }
    }

    #[test]
    fn what_looks_alike_takes_a_fifth() {
        let mut packer = Packer::default();
        let (mut before, mut after) = (0, 0);
        for number in 0..100 {
            let bytes = resource(number);
            before += bytes.len();
            after += packer.pack(bytes).bytes.len();
        }
        assert!(after * 5 < before, "{after} of {before} bytes");
    }

    #[test]
    fn what_gets_no_smaller_stays_as_it_is() {
        let mut packer = Packer::default();
        for bytes in [Bytes::new(), "abc".into(), vec![0; LONGEST + 1].into()] {
            assert!(packer.pack(bytes).packing.is_none());
        }
    }
}
