//! An assignment that is much like the one before it: only endpoints whose bytes are new are decoded.
//!
//! EDS sends a service whole whenever one of its endpoints changes. Here the encoded message is cut into endpoints without being decoded,
//! and each is compared with the one that stood at its place before; what is equal is the endpoint that there was. What the result means
//! does not depend on what is remembered.
use std::sync::Arc;

use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use prost::bytes::{Buf as _, Bytes};
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

/// The endpoints of an assignment by their bytes, each locality in order. Holds on to the bytes.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    localities: Vec<Vec<(Bytes, Arc<Endpoint>)>>,
    /// Something is to be listed about an endpoint, so all have to be looked at each time.
    has_problems: bool,
}

impl Remembered {
    /// Converts what EDS sends, as [`crate::decode::load_assignment`], and remembers it.
    ///
    /// # Errors
    /// As there.
    pub fn load_assignment(&self, bytes: &Bytes) -> Result<(Converted<LoadAssignment>, Self), Rejection> {
        let unnamed = Context::new(KIND, "");
        let malformed = |error: String| unnamed.root().reject(format!("malformed {KIND}: {error}"));
        let refused = |error: DecodeError| malformed(error.to_string());
        let (localities, rest) = cut(bytes, LOCALITIES).map_err(malformed)?;
        let proto = pb::ClusterLoadAssignment::decode(&*rest).map_err(refused)?;
        let context = Context::new(KIND, &proto.cluster_name);
        let root = context.root();
        let mut remembered = Self::default();
        let mut converted = Vec::with_capacity(localities.len());
        for (index, bytes) in localities.iter().enumerate() {
            let at = root.field("endpoints").index(index);
            let (endpoints, rest) = cut(bytes, ENDPOINTS).map_err(malformed)?;
            let proto = pb::LocalityLbEndpoints::decode(&*rest).map_err(refused)?;
            let known = self.localities.get(index).filter(|_| !self.has_problems);
            let known = known.map_or(&[][..], Vec::as_slice);
            let endpoints = convert(&at, endpoints, known)?;
            let shared = endpoints.iter().map(|(_, endpoint)| endpoint.clone()).collect();
            converted.push(LocalityEndpoints::with_endpoints(&at, proto, shared)?);
            remembered.localities.push(endpoints);
        }
        let value = LoadAssignment::with_localities(&root, proto, converted)?;
        let converted = context.finish(value);
        remembered.has_problems = !converted.problems.is_empty();
        Ok((converted, remembered))
    }
}

/// Endpoints with their bytes, from `known` where that has the same.
fn convert(
    at: &FieldPath<'_>,
    endpoints: Vec<Bytes>,
    known: &[(Bytes, Arc<Endpoint>)],
) -> Result<Vec<(Bytes, Arc<Endpoint>)>, Rejection> {
    let mut converted = Vec::with_capacity(endpoints.len());
    // Where the next one stood before.
    let mut place = 0;
    let mut endpoints = endpoints.into_iter().enumerate().peekable();
    while let Some((index, bytes)) = endpoints.next() {
        let is_at = |place: usize, bytes: &Bytes| known.get(place).filter(|(known, _)| known == bytes);
        if let Some((_, endpoint)) = is_at(place, &bytes) {
            converted.push((bytes, endpoint.clone()));
            place += 1;
        } else if let Some((_, endpoint)) = is_at(place + 1, &bytes) {
            // The one between is gone.
            converted.push((bytes, endpoint.clone()));
            place += 2;
        } else {
            let at = at.field("lb_endpoints").index(index);
            let proto = pb::LbEndpoint::decode(&*bytes)
                .map_err(|error| at.reject(format!("malformed endpoint: {error}")))?;
            let endpoint = Endpoint::from_proto(&at, proto, Names::Refused)?;
            converted.push((bytes, Arc::new(endpoint)));
            // If the next one is the one expected here, this is one more; else it stands for another.
            let is_more = endpoints
                .peek()
                .is_some_and(|(_, next)| is_at(place, next).is_some());
            place += usize::from(!is_more);
        }
    }
    Ok(converted)
}

/// Takes the values of the repeated message `field` out of an encoded message; what is left is the rest of it.
fn cut(message: &Bytes, field: u32) -> Result<(Vec<Bytes>, Vec<u8>), String> {
    let text = |error: DecodeError| error.to_string();
    let (mut taken, mut rest) = (Vec::new(), Vec::new());
    let mut buffer = message.clone();
    while buffer.has_remaining() {
        let before = buffer.clone();
        let (number, wire_type) = decode_key(&mut buffer).map_err(text)?;
        if number == field && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut buffer).map_err(text)?).unwrap_or(usize::MAX);
            if length > buffer.remaining() {
                return Err("an endpoint ends too late".to_owned());
            }
            taken.push(buffer.split_to(length));
        } else {
            skip_field(wire_type, number, &mut buffer, DecodeContext::default()).map_err(text)?;
            let length = before.remaining() - buffer.remaining();
            rest.extend_from_slice(before.get(..length).unwrap_or_default());
        }
    }
    Ok((taken, rest))
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
        let (first, remembered) = Remembered::default()
            .load_assignment(&encoded(before))
            .expect("valid");
        let (second, _) = remembered.load_assignment(&encoded(after)).expect("valid");
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
        let (_, remembered) = Remembered::default().load_assignment(&valid).expect("valid");
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
                remembered.load_assignment(&bytes),
            );
            match (plain, quick) {
                (Ok(plain), Ok((quick, _))) => assert_eq!(plain, quick, "{bytes:?}"),
                (Err(plain), Err(quick)) => assert_eq!(plain.resource.is_empty(), quick.resource.is_empty()),
                (plain, quick) => panic!("{bytes:?}: {plain:?} and {quick:?}"),
            }
        }
    }
}
