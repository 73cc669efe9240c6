//! An assignment that is much like the one before it: only endpoints whose bytes are new are decoded.
//!
//! EDS sends a service whole whenever one of its endpoints changes. Here the encoded message is walked through without being decoded, and
//! each endpoint is compared with the one that stood at its place before; what is equal is the endpoint that there was. What the result
//! means does not depend on what is remembered.
use std::ops::Range;
use std::sync::Arc;

use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use prost::bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message as _};

use super::{Endpoint, LoadAssignment, LocalityEndpoints};
use crate::address::Names;
use crate::field::{Context, Converted, FieldPath, Rejection};

const KIND: &str = "load assignment";
/// `ClusterLoadAssignment.endpoints`. Source: endpoint.proto.
const LOCALITIES: u32 = 2;
/// `LocalityLbEndpoints.lb_endpoints`. Source: endpoint_components.proto.
const ENDPOINTS: u32 = 2;

/// An assignment and where its endpoints lie in its bytes.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    layout: Layout,
    assignment: LoadAssignment,
}

/// Where the endpoints of an assignment lie in its bytes, which this holds on to.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    bytes: Bytes,
    /// Of each locality, in order.
    localities: Vec<Vec<Field>>,
    /// Something is to be listed about an endpoint, so all have to be looked at each time.
    has_problems: bool,
}

/// The bytes of one endpoint, with the key and the length before them.
#[derive(Debug, Clone, Copy)]
struct Field {
    begin: u32,
    end: u32,
}

impl Layout {
    /// With what it is the layout of.
    #[must_use]
    pub fn remember(self, assignment: LoadAssignment) -> Remembered {
        Remembered {
            layout: self,
            assignment,
        }
    }
}

impl Remembered {
    /// Converts what EDS sends, as [`crate::decode::load_assignment`]; its layout, to be remembered with it. `pause` is called between
    /// endpoints: there may be thousands, and others may have to run.
    ///
    /// # Errors
    /// As there.
    pub fn load_assignment(
        &self,
        bytes: &Bytes,
        pause: &dyn Fn(),
    ) -> Result<(Converted<LoadAssignment>, Layout), Rejection> {
        let unnamed = Context::new(KIND, "");
        let malformed = |error: DecodeError| unnamed.root().reject(format!("malformed {KIND}: {error}"));
        let cut = cut(bytes, 0..bytes.len(), LOCALITIES).map_err(malformed)?;
        let proto = pb::ClusterLoadAssignment::decode(&*cut.rest).map_err(malformed)?;
        let context = Context::new(KIND, &proto.cluster_name);
        let root = context.root();
        let mut layout = Layout {
            bytes: bytes.clone(),
            ..Layout::default()
        };
        let mut converted = Vec::with_capacity(cut.taken.len());
        for (index, place) in cut.taken.into_iter().enumerate() {
            let at = root.field("endpoints").index(index);
            let walked = self
                .locality(index)
                .walk(bytes, place, pause)
                .map_err(malformed)?;
            let proto = pb::LocalityLbEndpoints::decode(&*walked.rest).map_err(malformed)?;
            let endpoints = convert(&at, bytes, walked.endpoints, pause)?;
            converted.push(LocalityEndpoints::with_endpoints(&at, proto, endpoints, pause)?);
            layout.localities.push(walked.fields);
        }
        let value = LoadAssignment::with_localities(&root, proto, converted)?;
        let converted = context.finish(value);
        layout.has_problems = !converted.problems.is_empty();
        Ok((converted, layout))
    }

    /// Drops it. `pause` is called between endpoints.
    pub fn forget(self, pause: &dyn Fn()) {
        for endpoint in self
            .assignment
            .localities
            .into_iter()
            .flat_map(|group| group.endpoints)
        {
            drop(endpoint);
            pause();
        }
    }

    fn locality(&self, index: usize) -> Known<'_> {
        let layout = &self.layout;
        let locality = (layout.localities.get(index)).zip(self.assignment.localities.get(index));
        let (fields, endpoints) = locality.filter(|_| !layout.has_problems).map_or_else(
            || (&[][..], &[][..]),
            |(fields, locality)| (fields.as_slice(), locality.endpoints.as_slice()),
        );
        Known {
            bytes: &layout.bytes,
            fields,
            endpoints,
        }
    }
}

/// The endpoints that a locality had before.
struct Known<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
    endpoints: &'a [Arc<Endpoint>],
}

/// A locality, walked through.
#[derive(Default)]
struct Walked {
    fields: Vec<Field>,
    endpoints: Vec<Found>,
    /// What is not an endpoint.
    rest: Vec<u8>,
}

enum Found {
    /// The same as before.
    Known(Arc<Endpoint>),
    /// To be decoded.
    New(Range<usize>),
}

impl Known<'_> {
    /// The endpoint at this place, and how many bytes it takes, if `message` begins with it.
    fn at(&self, place: usize, message: &[u8]) -> Option<(&Arc<Endpoint>, usize)> {
        let field = self.fields.get(place)?;
        let bytes = self.bytes.get(field.begin as usize..field.end as usize)?;
        // The length is part of it, so nothing longer begins with it.
        message.starts_with(bytes).then_some(())?;
        Some((self.endpoints.get(place)?, bytes.len()))
    }

    /// Walks through the locality at `range` of `message`.
    fn walk(&self, message: &[u8], range: Range<usize>, pause: &dyn Fn()) -> Result<Walked, DecodeError> {
        let mut walked = Walked::default();
        walked.fields.reserve(self.fields.len());
        walked.endpoints.reserve(self.fields.len());
        let (mut begin, end) = (range.start, range.end);
        // Where the next one stood before.
        let mut place = 0;
        while begin < end {
            pause();
            let left = message.get(begin..end).unwrap_or_default();
            // If it is the next but one, the one between is gone.
            let known = (place..=place + 1).find_map(|place| Some((place, self.at(place, left)?)));
            if let Some((known_place, (endpoint, length))) = known {
                walked.push(begin, length, Found::Known(endpoint.clone()));
                begin += length;
                place = known_place + 1;
                continue;
            }
            let (number, value, after) = field(left)?;
            let length = left.len() - after.len();
            match value.filter(|_| number == ENDPOINTS) {
                Some(value) => {
                    let value = begin + length - value.len()..begin + length;
                    walked.push(begin, length, Found::New(value));
                    // If the next one is the one expected here, this is one more; else it stands for another.
                    place += usize::from(self.at(place, after).is_none());
                }
                None => walked
                    .rest
                    .extend_from_slice(left.get(..length).unwrap_or_default()),
            }
            begin += length;
        }
        Ok(walked)
    }
}

impl Walked {
    fn push(&mut self, begin: usize, length: usize, found: Found) {
        // Responses are shorter than 4 GiB; one that were not is found nowhere the next time.
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        self.fields.push(Field {
            begin: number(begin),
            end: number(begin + length),
        });
        self.endpoints.push(found);
    }
}

fn convert(
    at: &FieldPath<'_>,
    message: &[u8],
    endpoints: Vec<Found>,
    pause: &dyn Fn(),
) -> Result<Vec<Arc<Endpoint>>, Rejection> {
    let convert = |(index, found): (usize, Found)| {
        pause();
        let value = match found {
            Found::Known(endpoint) => return Ok(endpoint),
            Found::New(value) => message.get(value).unwrap_or_default(),
        };
        let at = at.field("lb_endpoints").index(index);
        let proto = pb::LbEndpoint::decode(value)
            .map_err(|error| at.reject(format!("malformed endpoint: {error}")))?;
        Endpoint::from_proto(&at, proto, Names::Refused).map(Arc::new)
    };
    endpoints.into_iter().enumerate().map(convert).collect()
}

/// A message without the values of a repeated message field.
#[derive(Default)]
struct Cut {
    /// Where they lie.
    taken: Vec<Range<usize>>,
    rest: Vec<u8>,
}

/// Cuts the values of the repeated message `wanted` out of the message at `range`.
fn cut(message: &[u8], range: Range<usize>, wanted: u32) -> Result<Cut, DecodeError> {
    let mut cut = Cut::default();
    let (mut begin, end) = (range.start, range.end);
    while begin < end {
        let left = message.get(begin..end).unwrap_or_default();
        let (number, value, after) = field(left)?;
        let length = left.len() - after.len();
        match value.filter(|_| number == wanted) {
            Some(value) => cut.taken.push(begin + length - value.len()..begin + length),
            None => cut.rest.extend_from_slice(left.get(..length).unwrap_or_default()),
        }
        begin += length;
    }
    Ok(cut)
}

/// The number of a field, its value if it has a length, and what follows it.
type First<'a> = (u32, Option<&'a [u8]>, &'a [u8]);

/// The first field of an encoded message.
fn field(message: &[u8]) -> Result<First<'_>, DecodeError> {
    let mut left = message;
    let (number, wire_type) = decode_key(&mut left)?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, number, &mut left, DecodeContext::default())?;
        return Ok((number, None, left));
    }
    let mut value = left;
    let length = usize::try_from(decode_varint(&mut value)?).unwrap_or(usize::MAX);
    match value.split_at_checked(length) {
        Some((value, after)) => Ok((number, Some(value), after)),
        // It ends too late: said in prost's words.
        None => {
            skip_field(wire_type, number, &mut left, DecodeContext::default())?;
            Ok((number, None, left))
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::google::protobuf::UInt32Value;

    use super::*;
    use crate::decode;

    fn encoded(localities: &[&[u8]]) -> Bytes {
        let endpoint = |last: &u8| pb::LbEndpoint {
            load_balancing_weight: Some(UInt32Value {
                value: u32::from(*last),
            }),
            host_identifier: Some(pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint {
                address: Some(core::Address {
                    address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                        address: format!("10.0.0.{last}"),
                        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
                        ..Default::default()
                    })),
                }),
                ..Default::default()
            })),
            ..Default::default()
        };
        let locality = |(priority, endpoints): (u32, &&[u8])| pb::LocalityLbEndpoints {
            lb_endpoints: endpoints.iter().map(endpoint).collect(),
            priority,
            ..Default::default()
        };
        let assignment = pb::ClusterLoadAssignment {
            cluster_name: "c".to_owned(),
            endpoints: (0..).zip(localities).map(locality).collect(),
            ..Default::default()
        };
        assignment.encode_to_vec().into()
    }

    /// How many endpoints of `after` are those of `before`; the meaning must be that of a conversion that remembers nothing.
    fn check(before: &[&[u8]], after: &[&[u8]], expected: usize) {
        let (first, layout) = Remembered::default()
            .load_assignment(&encoded(before), &|| ())
            .expect("valid");
        let remembered = layout.remember(first.value.clone());
        let (second, _) = remembered
            .load_assignment(&encoded(after), &|| ())
            .expect("valid");
        assert_eq!(second, decode::load_assignment(&encoded(after)).expect("valid"));
        let of = |assignment: &LoadAssignment| {
            let localities = assignment.localities.iter();
            localities
                .flat_map(|group| group.endpoints.clone())
                .collect::<Vec<_>>()
        };
        let (first, second) = (of(&first.value), of(&second.value));
        let is_old = |endpoint: &&Arc<Endpoint>| first.iter().any(|old| Arc::ptr_eq(old, endpoint));
        assert_eq!(
            second.iter().filter(is_old).count(),
            expected,
            "{before:?} {after:?}"
        );
    }

    #[test]
    fn endpoints_that_stay_are_not_decoded_again() {
        check(&[&[1, 2, 3, 4, 5]], &[&[1, 2, 3, 4, 5]], 5);
        check(&[&[1, 2, 3, 4, 5]], &[&[1, 9, 3, 4, 5]], 4);
        check(&[&[1, 2, 3, 4, 5]], &[&[1, 3, 4, 5]], 4);
        check(&[&[1, 2, 3, 4, 5]], &[&[1, 2, 9, 3, 4, 5]], 5);
        check(&[&[1, 2, 3, 4, 5]], &[&[9, 1, 2, 4, 5, 8]], 4);
        check(&[&[1, 2], &[3]], &[&[1, 2], &[3, 4]], 3);
        check(&[&[1, 2]], &[&[], &[1, 2]], 0);
        check(&[], &[&[1]], 0);
    }

    #[test]
    fn damaged_bytes_are_judged_as_if_nothing_was_remembered() {
        let valid = encoded(&[&[1, 2], &[3]]);
        let (first, layout) = Remembered::default()
            .load_assignment(&valid, &|| ())
            .expect("valid");
        let remembered = layout.remember(first.value);
        let mut seed = 7_u32;
        for round in 0..3000 {
            let mut bytes = valid.to_vec();
            for _ in 0..=round % 3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let place = (seed >> 8) as usize % bytes.len();
                bytes[place] = (seed >> 24) as u8;
            }
            let bytes = Bytes::from(bytes);
            let (plain, quick) = (
                decode::load_assignment(&bytes),
                remembered.load_assignment(&bytes, &|| ()),
            );
            match (plain, quick) {
                (Ok(plain), Ok((quick, _))) => assert_eq!(plain, quick, "{bytes:?}"),
                (Err(plain), Err(quick)) => assert_eq!(plain.resource.is_empty(), quick.resource.is_empty()),
                (plain, quick) => panic!("{bytes:?}: {plain:?} and {quick:?}"),
            }
        }
    }
}
