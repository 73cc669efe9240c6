//! What a client sends on an HTTP/1 connection: it means the same however it is split, and no more of it is kept than the limits allow.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| outrigger::fuzz::http1_request(data));
