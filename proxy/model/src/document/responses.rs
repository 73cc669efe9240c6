//! Responses of a control plane as text: files of resources, and bodies of its REST API.
//!
//! The file name says what it holds: `.pb` the binary encoding, `.json` and `.yaml` text. In a file a field that the messages do not
//! have is refused: Envoy passes over it, and a misspelt `trusted_ca` would then admit everybody. A REST server may be newer than this
//! program, so there it is passed over, as Envoy does.
//! Source: envoy/service/discovery/v3/discovery.proto; source/common/protobuf/utility.cc `loadFromFile`.
use std::io;
use std::path::Path;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use prost::Message as _;

use super::{DocumentError, Format, Refusal, Source, UnknownFields, merged, read, too_deep};
use crate::dump::{Defaults, Descriptors};

const REQUEST: &str = "envoy.service.discovery.v3.DiscoveryRequest";
const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

/// How complaints name the body of a REST response.
const BODY: &str = "response body";

/// Reads a file of resources of any type. Blocks; builds the large descriptor set unless the small one will do.
///
/// # Errors
/// [`DocumentError`]: with line, column and field path for text; [`DocumentError::Read`] for anything that is no regular file.
pub fn read_response(path: &Path) -> Result<DiscoveryResponse, DocumentError> {
    let file = path.display().to_string();
    response(&file, &read_regular(path)?, UnknownFields::Refuse, true)
}

/// Reads the body of a REST response, with descriptors of what it names: milliseconds.
///
/// # Errors
/// [`DocumentError`], with line, column and field path.
pub fn response_from_json(body: &[u8]) -> Result<DiscoveryResponse, DocumentError> {
    let source = Source::new(BODY, body, Format::Json)?;
    let sources = [source];
    let named = Descriptors::of(&[RESPONSE], std::iter::once(body))?;
    let encoded = match merged(&named, RESPONSE, &sources, UnknownFields::Ignore) {
        // The name of a type may be written with escapes.
        Err(Refusal::Fault(fault)) if fault.0.unknown_type => {
            merged(&Descriptors::full()?, RESPONSE, &sources, UnknownFields::Ignore)
        }
        other => other,
    };
    let encoded = encoded.map_err(Refusal::into_error)?;
    DiscoveryResponse::decode(encoded.as_slice()).map_err(|error| too_deep(BODY, &error))
}

/// The body of a REST request.
///
/// # Errors
/// Only for a broken build.
pub fn request_to_json(request: &DiscoveryRequest) -> Result<String, DocumentError> {
    let descriptors = Descriptors::secrets()?;
    let json = descriptors.message_to_json(REQUEST, &request.encode_to_vec(), Defaults::Omit);
    Ok(json.unwrap_or_default())
}

/// Opening a pipe would wait for a writer.
pub(super) fn read_regular(path: &Path) -> Result<Vec<u8>, DocumentError> {
    let content = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => read(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Err(error) => Err(error),
    };
    content.map_err(|source| DocumentError::Read {
        file: path.display().to_string(),
        source,
    })
}

/// `any_type`: resources of every type, not only secrets.
pub(super) fn response(
    file: &str,
    content: &[u8],
    unknown: UnknownFields,
    any_type: bool,
) -> Result<DiscoveryResponse, DocumentError> {
    if file.ends_with(".pb") {
        return DiscoveryResponse::decode(content).map_err(|error| DocumentError::Read {
            file: file.to_owned(),
            source: io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no encoded DiscoveryResponse: {error}"),
            ),
        });
    }
    let sources = [Source::new(file, content, Format::of(file, content))?];
    // Whatever is not in this set is no secret; the large one would cost 17 MB to say so.
    let small = merged(&Descriptors::secrets()?, RESPONSE, &sources, unknown);
    let encoded = match small {
        Err(Refusal::Fault(fault)) if any_type && fault.0.unknown_type => {
            merged(&Descriptors::full()?, RESPONSE, &sources, unknown)
        }
        other => other,
    };
    let encoded = encoded.map_err(Refusal::into_error)?;
    DiscoveryResponse::decode(encoded.as_slice()).map_err(|error| too_deep(file, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use envoy_types::pb::envoy::config::core::v3::Node;

    use super::*;
    use crate::decode::CLUSTER_TYPE;

    const CLUSTERS: &str = r#"{"version_info": "7", "resources":
        [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c", "connectTimeout": "1s"}]}"#;

    #[test]
    fn a_file_may_hold_resources_of_any_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cds.json");
        std::fs::write(&path, CLUSTERS).unwrap();
        let response = read_response(&path).unwrap();
        assert_eq!(response.version_info, "7");
        let cluster = crate::decode::cluster(&response.resources[0].value).unwrap();
        assert_eq!(cluster.value.name, "c");
        std::fs::write(&path, CLUSTERS.replace("connect", "conect")).unwrap();
        let complaint = read_response(&path).unwrap_err().to_string();
        assert!(
            complaint.contains("did you mean `connectTimeout`?"),
            "{complaint}"
        );
    }

    #[test]
    fn a_rest_server_may_know_fields_that_are_not_known_here() {
        let body = CLUSTERS.replace("\"name\"", "\"newer\": 1, \"name\"");
        let response = response_from_json(body.as_bytes()).unwrap();
        assert_eq!(response.resources[0].type_url, CLUSTER_TYPE);
        let escaped = body.replace("v3.Cluster", r"v3\u002eCluster");
        assert_eq!(response_from_json(escaped.as_bytes()).unwrap(), response);
        let complaint = response_from_json(b"<html>").unwrap_err().to_string();
        assert!(complaint.starts_with("response body:1:1: "), "{complaint}");
    }

    #[test]
    fn a_request_has_the_names_that_envoy_writes() {
        let request = DiscoveryRequest {
            version_info: "7".to_owned(),
            node: Some(Node {
                id: "n".to_owned(),
                user_agent_name: "envoy".to_owned(),
                ..Node::default()
            }),
            resource_names: vec!["a".to_owned()],
            type_url: CLUSTER_TYPE.to_owned(),
            ..DiscoveryRequest::default()
        };
        let json = request_to_json(&request).unwrap();
        let compact: String = json.split_whitespace().collect();
        assert_eq!(
            compact,
            format!(
                r#"{{"version_info":"7","node":{{"id":"n","user_agent_name":"envoy"}},"resource_names":["a"],"type_url":"{CLUSTER_TYPE}"}}"#
            )
        );
    }
}
