//! Bodies through gzip, piece by piece. Source: Envoy `ZlibCompressorImpl`, `ZlibDecompressorImpl`.
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use outrigger_model::http_filter::compressor::GzipLevel;

use crate::codec::body::{BodyError, Transform};
use crate::stats::Counter;

/// Bytes that go through a body.
#[derive(Debug, Clone)]
pub(super) struct ByteCounts {
    pub(super) compressed: Counter,
    pub(super) uncompressed: Counter,
}

/// Output is made in pieces of so many bytes; Envoy's default `chunk_size`.
const CHUNK_BYTES: usize = 4096;
const BROKEN: BodyError = BodyError::Ended("gzip failed");

/// Compresses a body; what came of a piece goes at once.
#[derive(Debug)]
pub(super) struct Gzip {
    inner: Compress,
    counts: ByteCounts,
}

impl Gzip {
    pub(super) fn new(config: &GzipLevel, counts: ByteCounts) -> Self {
        let level = config.level.map_or_else(Compression::default, Compression::new);
        Self {
            inner: Compress::new_gzip(level, config.window_bits),
            counts,
        }
    }

    fn run(&mut self, data: &[u8], flush: FlushCompress) -> Result<Bytes, BodyError> {
        let mut made = Vec::new();
        let mut rest = data;
        loop {
            made.reserve(CHUNK_BYTES);
            let before = self.inner.total_in();
            let status = self
                .inner
                .compress_vec(rest, &mut made, flush)
                .map_err(|_| BROKEN)?;
            rest = after(rest, self.inner.total_in() - before);
            let has_room = made.len() < made.capacity();
            if status == Status::StreamEnd || (rest.is_empty() && has_room) {
                break;
            }
        }
        self.counts.uncompressed.add(data.len() as u64);
        self.counts.compressed.add(made.len() as u64);
        Ok(made.into())
    }
}

fn after(data: &[u8], taken: u64) -> &[u8] {
    let taken = usize::try_from(taken).unwrap_or(usize::MAX);
    data.get(taken..).unwrap_or_default()
}

impl Transform for Gzip {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        match data.is_empty() {
            true => Ok(data),
            false => self.run(&data, FlushCompress::Sync),
        }
    }

    fn end(&mut self) -> Result<Bytes, BodyError> {
        self.run(&[], FlushCompress::Finish)
    }
}

/// Decompresses a body. As Envoy, what is no gzip, or becomes too large, ends what is made of it, and not the body.
#[derive(Debug)]
pub(super) struct Gunzip {
    inner: Decompress,
    max_ratio: usize,
    is_over: bool,
    data_errors: Counter,
    counts: ByteCounts,
}

/// The largest window that gzip has.
const WINDOW_BITS: u8 = 15;

impl Gunzip {
    pub(super) fn new(max_ratio: u32, data_errors: Counter, counts: ByteCounts) -> Self {
        Self {
            inner: Decompress::new_gzip(WINDOW_BITS),
            max_ratio: usize::try_from(max_ratio).unwrap_or(usize::MAX),
            is_over: false,
            data_errors,
            counts,
        }
    }

    fn fail(&mut self) {
        self.is_over = true;
        self.data_errors.inc();
    }

    fn run(&mut self, data: &[u8]) -> Vec<u8> {
        let mut made = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        let mut rest = data;
        while !self.is_over {
            let (before, made_before) = (self.inner.total_in(), self.inner.total_out());
            let status = self.inner.decompress(rest, &mut chunk, FlushDecompress::None);
            rest = after(rest, self.inner.total_in() - before);
            let bytes = usize::try_from(self.inner.total_out() - made_before).unwrap_or(CHUNK_BYTES);
            made.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
            match status {
                Ok(Status::StreamEnd) => self.is_over = true,
                Ok(_) if bytes < CHUNK_BYTES => break,
                Ok(_) if made.len() > data.len().saturating_mul(self.max_ratio) => self.fail(),
                Ok(_) => {}
                Err(_) => self.fail(),
            }
        }
        made
    }
}

impl Transform for Gunzip {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        let made = self.run(&data);
        self.counts.compressed.add(data.len() as u64);
        self.counts.uncompressed.add(made.len() as u64);
        Ok(made.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL: GzipLevel = GzipLevel {
        level: None,
        window_bits: 12,
    };

    fn counts() -> ByteCounts {
        ByteCounts {
            compressed: Counter::none(),
            uncompressed: Counter::none(),
        }
    }

    fn compressed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut gzip = Gzip::new(&LEVEL, counts());
        let mut all = Vec::new();
        for piece in pieces {
            let made = gzip
                .data(Bytes::copy_from_slice(piece))
                .expect("it takes anything");
            assert_eq!(
                made.is_empty(),
                piece.is_empty(),
                "what came of a piece goes at once"
            );
            all.extend_from_slice(&made);
        }
        all.extend_from_slice(&gzip.end().expect("an end"));
        all
    }

    fn decompressed(data: &[u8], size: usize, max_ratio: u32) -> (Vec<u8>, bool) {
        let mut gunzip = Gunzip::new(max_ratio, Counter::none(), counts());
        let mut all = Vec::new();
        for piece in data.chunks(size) {
            all.extend_from_slice(&gunzip.data(Bytes::copy_from_slice(piece)).expect("never refused"));
        }
        (all, gunzip.is_over)
    }

    #[test]
    fn what_was_compressed_comes_back_however_it_is_cut() {
        let noise: Vec<u8> = (0..100_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for pieces in [
            vec![],
            vec![&b"abc"[..]],
            vec![b"", b"abc", b"", b"def"],
            vec![&noise[..], &noise[..7]],
        ] {
            let packed = compressed(&pieces);
            for size in [1, 7, 5000, 1_000_000] {
                let (back, is_over) = decompressed(&packed, size, 1032);
                assert_eq!((back, is_over), (pieces.concat(), true), "in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_bomb_and_what_is_no_gzip_make_no_more() {
        let bomb = compressed(&[&[0; 1_000_000]]);
        let (made, is_over) = decompressed(&bomb, bomb.len(), 10);
        assert!(
            is_over && made.len() <= 10 * bomb.len() + CHUNK_BYTES,
            "{}",
            made.len()
        );
        assert_eq!(decompressed(b"not gzip", 3, 100), (Vec::new(), true));
        let packed = compressed(&[b"abcdef"]);
        let (made, is_over) = decompressed(&packed[..packed.len() - 9], 1000, 100);
        assert!(!is_over && made.starts_with(b"abc"), "more may come");
    }
}
