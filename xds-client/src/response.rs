//! Responses as they are received: what they carry stays where it lies in the bytes that came, and is not copied.
//!
//! The messages of the protocol as `envoy_types` has them own every byte; a push of a large mesh is ten megabytes of which, most often,
//! nothing is new. Only the fields that the protocol needs are here. Source: envoy/service/discovery/v3/discovery.proto.

use envoy_types::pb::envoy::service::discovery::v3 as pb;
use envoy_types::pb::google::protobuf;
use prost::Message;
use prost::bytes::Bytes;

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// The URL of the type of the value, as it came.
    #[prost(bytes = "bytes", tag = "1")]
    pub type_url: Bytes,
    /// The encoded message: a part of the response in which it came. Who keeps it keeps much of that response; copy what is to stay.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// A response of the state-of-the-world protocol.
#[derive(Clone, PartialEq, Message)]
pub struct SotwResponse {
    /// Of the whole set.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// The resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The type of all of them.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the answer has to say.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Encoded `ResourceError`s; counted, and not read.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub resource_errors: Vec<Bytes>,
}

/// A response of the incremental protocol.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaResponse {
    /// For people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// What is new or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<DeltaResource>,
    /// The type of all of them.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the answer has to say.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of what is gone.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// The same, in the other form that there is.
    #[prost(message, repeated, tag = "8")]
    pub removed_resource_names: Vec<Name>,
    /// Encoded `ResourceError`s; counted, and not read.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub resource_errors: Vec<Bytes>,
}

/// A resource with what the incremental protocol says of it (`Resource`).
#[derive(Clone, PartialEq, Message)]
pub struct DeltaResource {
    /// Its version; may be empty.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Itself; `None` in a heartbeat.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name, unless `resource_name` has it.
    #[prost(string, tag = "3")]
    pub name: String,
    /// How long it lives.
    #[prost(message, optional, tag = "6")]
    pub ttl: Option<protobuf::Duration>,
    /// Its name, in the other form that there is.
    #[prost(message, optional, tag = "8")]
    pub resource_name: Option<Name>,
}

/// `ResourceName`, without its constraints.
#[derive(Clone, PartialEq, Message)]
pub struct Name {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

impl From<protobuf::Any> for Any {
    fn from(any: protobuf::Any) -> Self {
        let protobuf::Any { type_url, value } = any;
        Self {
            type_url: type_url.into(),
            value: value.into(),
        }
    }
}

impl From<pb::DiscoveryResponse> for SotwResponse {
    fn from(response: pb::DiscoveryResponse) -> Self {
        let pb::DiscoveryResponse {
            version_info,
            resources,
            canary: _,
            type_url,
            nonce,
            control_plane: _,
            resource_errors,
        } = response;
        Self {
            version_info,
            resources: resources.into_iter().map(Any::from).collect(),
            type_url,
            nonce,
            resource_errors: encoded(&resource_errors),
        }
    }
}

impl From<pb::DeltaDiscoveryResponse> for DeltaResponse {
    fn from(response: pb::DeltaDiscoveryResponse) -> Self {
        let pb::DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url,
            removed_resources,
            removed_resource_names,
            nonce,
            control_plane: _,
            resource_errors,
        } = response;
        Self {
            system_version_info,
            resources: resources.into_iter().map(DeltaResource::from).collect(),
            type_url,
            nonce,
            removed_resources,
            removed_resource_names: removed_resource_names.into_iter().map(Name::from).collect(),
            resource_errors: encoded(&resource_errors),
        }
    }
}

impl From<pb::Resource> for DeltaResource {
    fn from(resource: pb::Resource) -> Self {
        let pb::Resource {
            name,
            resource_name,
            aliases: _,
            version,
            resource,
            ttl,
            cache_control: _,
            metadata: _,
        } = resource;
        Self {
            version,
            resource: resource.map(Any::from),
            name,
            ttl,
            resource_name: resource_name.map(Name::from),
        }
    }
}

impl From<pb::ResourceName> for Name {
    fn from(name: pb::ResourceName) -> Self {
        let pb::ResourceName {
            name,
            dynamic_parameter_constraints: _,
        } = name;
        Self { name }
    }
}

fn encoded(errors: &[pb::ResourceError]) -> Vec<Bytes> {
    errors.iter().map(|error| error.encode_to_vec().into()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_decoded_is_what_the_whole_message_says() {
        let any = protobuf::Any {
            type_url: "t".to_owned(),
            value: b"abc".to_vec(),
        };
        let error = pb::ResourceError::default();
        let delta = pb::DeltaDiscoveryResponse {
            system_version_info: "v".to_owned(),
            resources: vec![pb::Resource {
                name: "n".to_owned(),
                resource_name: Some(pb::ResourceName {
                    name: "m".to_owned(),
                    ..Default::default()
                }),
                aliases: vec!["a".to_owned()],
                version: "1".to_owned(),
                resource: Some(any.clone()),
                ttl: Some(protobuf::Duration { seconds: 1, nanos: 2 }),
                cache_control: Some(Default::default()),
                metadata: Some(Default::default()),
            }],
            type_url: "t".to_owned(),
            removed_resources: vec!["r".to_owned()],
            removed_resource_names: vec![pb::ResourceName {
                name: "s".to_owned(),
                ..Default::default()
            }],
            nonce: "o".to_owned(),
            control_plane: Some(Default::default()),
            resource_errors: vec![error.clone()],
        };
        let bytes = Bytes::from(delta.encode_to_vec());
        let decoded = DeltaResponse::decode(bytes.clone()).unwrap();
        assert_eq!(decoded, delta.into());
        let value = &decoded.resources[0].resource.as_ref().unwrap().value;
        assert!(
            bytes.as_ptr_range().contains(&value.as_ptr()),
            "a part of what came"
        );
        let sotw = pb::DiscoveryResponse {
            version_info: "v".to_owned(),
            resources: vec![any],
            canary: true,
            type_url: "t".to_owned(),
            nonce: "o".to_owned(),
            control_plane: Some(Default::default()),
            resource_errors: vec![error],
        };
        let decoded = SotwResponse::decode(sotw.encode_to_vec().as_slice()).unwrap();
        assert_eq!(decoded, sotw.into());
    }
}
