//! Bytes from a peer never panic.
use super::captures;
use super::convert;

/// xorshift64: the same corruptions in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }
}

#[test]
fn corrupt_resources_are_converted_or_refused() {
    let captured = captures::all();
    let mut random = Random(0x3D23_0467_0000_0001);
    let mut refused = 0;
    for _ in 0..6000 {
        let resource = &captured[random.below(captured.len())];
        let mut bytes = resource.bytes.clone();
        for _ in 0..=random.below(4) {
            let index = random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(index) {
                *byte = u8::try_from(random.below(256)).unwrap();
            }
        }
        if random.below(8) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        refused += usize::from(convert(&resource.type_url, &bytes).is_err());
    }
    assert!(
        (1000..6000).contains(&refused),
        "{refused} of 6000 refused: the corruption is too weak or too strong"
    );
}
