//! Whatever bytes come for a resource: it is accepted, or refused with the place and the reason. Nothing panics; what would not end
//! would hold up the test run.
use std::collections::BTreeMap;

use super::captures::{self, Captured};
use super::mutator::{Random, mutate};
use crate::decode::{self, judge};
use crate::dump::Descriptors;
use crate::field::Rejection;

/// Changes of every resource type, so that the many endpoints do not crowd out the one route table.
fn by_type(captured: Vec<Captured>) -> Vec<Vec<Captured>> {
    let mut types: BTreeMap<String, Vec<Captured>> = BTreeMap::new();
    for one in captured {
        types.entry(one.type_url.clone()).or_default().push(one);
    }
    types.into_values().collect()
}

/// A refusal says where: at a field, or of bytes that are no message of the resource's type at all.
fn says_where(rejection: &Rejection) -> bool {
    !rejection.path.is_empty() || rejection.reason.starts_with("malformed ")
}

#[test]
fn a_thousand_mutations_of_captured_resources_are_applied_or_refused_with_a_path() {
    // SEEDS=100000 looks for longer.
    let seeds = std::env::var("SEEDS").map_or(1000_u64, |text| text.parse().unwrap());
    let types = by_type(captures::all());
    let descriptors = Descriptors::full().unwrap();
    let mut tally = Tally::default();
    (0..seeds).for_each(|seed| tally.judge(&types, &descriptors, seed));
    let Tally {
        accepted,
        refused,
        placed,
    } = tally;
    // Too weak a mutation proves nothing, and so does too strong a one.
    let fifth = usize::try_from(seeds / 5).unwrap();
    assert!(
        accepted > fifth && refused > fifth,
        "{accepted} accepted, {refused} refused"
    );
    assert!(
        placed > refused / 2,
        "{placed} of {refused} refusals say at which field"
    );
}

/// What became of the mutations.
#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    /// Refusals that name a field.
    placed: usize,
}

impl Tally {
    fn judge(&mut self, types: &[Vec<Captured>], descriptors: &Descriptors, seed: u64) {
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let alike = &types[random.below(types.len())];
        let resource = &alike[random.below(alike.len())];
        let mut bytes = resource.bytes.clone();
        for _ in 0..=random.below(2) {
            bytes = mutate(&bytes, &mut random);
        }
        match judge(&resource.type_url, &bytes).expect("a type that is known") {
            Ok(problems) => {
                self.accepted += 1;
                let have_path = problems.iter().all(|problem| !problem.path.is_empty());
                assert!(have_path, "seed {seed}: {problems:?}");
                // What is accepted is shown.
                let text = descriptors.any_to_json(&resource.type_url, &bytes);
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
            Err(rejection) => {
                self.refused += 1;
                self.placed += usize::from(!rejection.path.is_empty());
                assert!(says_where(&rejection), "seed {seed}: {rejection}");
                assert!(
                    rejection.to_string().len() < 20_000,
                    "seed {seed}: a reason without end"
                );
            }
        }
    }
}

#[test]
fn corrupt_bytes_are_converted_or_refused() {
    let captured = captures::all();
    let mut random = Random::new(0x3D23_0467_0000_0001);
    let mut refused = 0;
    for _ in 0..3000 {
        let resource = &captured[random.below(captured.len())];
        let mut bytes = resource.bytes.clone();
        for _ in 0..=random.below(4) {
            let index = random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(index) {
                *byte = u8::try_from(random.below(256)).unwrap();
            }
        }
        let answer = judge(&resource.type_url, &bytes).expect("a type that is known");
        refused += usize::from(answer.is_err());
    }
    assert!((500..3000).contains(&refused), "{refused} of 3000 refused");
}

#[test]
fn a_field_that_is_no_message_is_named() {
    // listener { filter_chains { filter_chain_match: 0x01 as a varint } }
    let rejection = decode::listener(&[0x1a, 0x02, 0x08, 0x01]).unwrap_err();
    assert_eq!(rejection.path, "filter_chains.filter_chain_match", "{rejection}");
    assert!(rejection.reason.starts_with("malformed listener"), "{rejection}");
}

#[test]
fn the_same_seed_gives_the_same_mutation() {
    let resource = &captures::all()[0];
    let mutated = |seed| mutate(&resource.bytes, &mut Random::new(seed));
    assert_eq!(mutated(7), mutated(7));
    let different = (0..20).filter(|seed| mutated(*seed) != resource.bytes).count();
    assert!(different > 15, "{different} of 20");
}
