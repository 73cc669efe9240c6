//! What the control plane knows: resources of three types, changing.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::google::protobuf::Any;

pub(crate) const CLUSTERS: &str = "clusters";
pub(crate) const ENDPOINTS: &str = "endpoints";
pub(crate) const SECRETS: &str = "secrets";
pub(crate) const TYPES: [&str; 3] = [CLUSTERS, ENDPOINTS, SECRETS];

/// Of each type this many names.
pub(crate) const NAMES: u8 = 6;

/// Values count up; a value that divides by this is refused by the owner.
const BAD: u64 = 5;

#[derive(Default)]
pub(crate) struct World {
    resources: BTreeMap<&'static str, BTreeMap<String, u64>>,
    last: u64,
}

impl World {
    pub(crate) fn new(random: &mut fastrand::Rng) -> Self {
        let mut world = World::default();
        (0..20).for_each(|_| world.change(random));
        world
    }

    pub(crate) fn change(&mut self, random: &mut fastrand::Rng) {
        self.last += 1;
        let type_url = TYPES[random.usize(..TYPES.len())];
        let name = format!("{}", random.u8(..NAMES));
        let of_type = self.resources.entry(type_url).or_default();
        // Endpoints and secrets stay: their removal is not something istiod says in the state of the world.
        if type_url == CLUSTERS && random.u8(..3) == 0 {
            of_type.remove(&name);
        } else {
            of_type.insert(name, self.last);
        }
    }

    /// Makes the bad resources acceptable. The others stay as they are: whoever missed one of them goes on missing it.
    pub(crate) fn heal(&mut self) {
        for value in self
            .resources
            .values_mut()
            .flat_map(BTreeMap::values_mut)
            .filter(|v| is_bad(**v))
        {
            self.last += if is_bad(self.last + 1) { 2 } else { 1 };
            *value = self.last;
        }
    }

    pub(crate) fn visible(&self, type_url: &str, names: &BTreeSet<String>) -> BTreeMap<String, u64> {
        let of_type = self.resources.get(type_url).into_iter().flatten();
        let wanted = of_type.filter(|(name, _)| names.contains("*") || names.contains(*name));
        wanted.map(|(name, value)| (name.clone(), *value)).collect()
    }

    pub(crate) fn version(&self) -> u64 {
        self.last
    }
}

pub(crate) fn is_bad(value: u64) -> bool {
    value.is_multiple_of(BAD)
}

/// As a protobuf message with its name in field 1 and its value in field 2.
pub(crate) fn encode(type_url: &str, name: &str, value: u64) -> Any {
    let body = prost::Message::encode_to_vec(&Body {
        name: name.to_owned(),
        value,
    });
    Any {
        type_url: type_url.to_owned(),
        value: body,
    }
}

pub(crate) fn decode(any: &xds_client::Any) -> u64 {
    <Body as prost::Message>::decode(&*any.value).unwrap().value
}

#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    value: u64,
}
