//! A resource from a control plane: any bytes are accepted or refused, and what is accepted is shown.
//!
//! The first byte chooses the type, the rest is the resource. Inputs change by the same mutator as in the model's tests, so that
//! they stay messages and reach deep. `fuzz/corpus/resource` holds some resources that a real istiod sent.
#![no_main]

#[path = "../../proxy/model/src/tests/mutator.rs"]
mod mutator;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use mutator::{Random, mutate};
use outrigger_model::decode::{self, judge};

/// The first byte of each file of the corpus is a place in it.
const TYPES: [&str; 6] = [
    decode::LISTENER_TYPE,
    decode::CLUSTER_TYPE,
    decode::ROUTE_TABLE_TYPE,
    decode::LOAD_ASSIGNMENT_TYPE,
    decode::SECRET_TYPE,
    decode::NAME_TABLE_TYPE,
];

fuzz_target!(|data: &[u8]| {
    let Some((first, resource)) = data.split_first() else {
        return;
    };
    let Some(type_url) = TYPES.get(usize::from(*first) % TYPES.len()) else {
        return;
    };
    if let Some(Err(rejection)) = judge(type_url, resource) {
        assert!(
            !rejection.path.is_empty() || rejection.reason.starts_with("malformed "),
            "a refusal that does not say where: {rejection}"
        );
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let Some((first, resource)) = data.get(..size).and_then(<[u8]>::split_first) else {
        return size;
    };
    let mut changed = vec![*first];
    changed.extend(mutate(resource, &mut Random::new(seed.into())));
    changed.truncate(max_size);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
});
