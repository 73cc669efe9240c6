//! Files of secrets: a `DiscoveryResponse`, as Envoy reads it for `path_config_source`; see [`super::responses`].
use std::path::Path;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::responses::{read_regular, response};
use super::{DocumentError, UnknownFields};
use crate::decode::SECRET_TYPE;

const RESOURCE: &str = "envoy.service.discovery.v3.Resource";

/// One secret of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSecret {
    /// Its name.
    pub name: String,
    /// `version_info` of the file.
    pub version: String,
    /// The encoded `Secret`, for [`crate::decode::secret`].
    pub bytes: Vec<u8>,
}

/// Reads a file of secrets. Blocks; builds a small descriptor set for text.
///
/// # Errors
/// [`DocumentError`]: with line, column and field path for text; [`DocumentError::Read`] for anything that is no regular file.
pub fn read_secrets(path: &Path) -> Result<Vec<FileSecret>, DocumentError> {
    let file = path.display().to_string();
    let response = response(&file, &read_regular(path)?, UnknownFields::Refuse, false)?;
    let version = response.version_info;
    let resources = response.resources.into_iter().enumerate();
    resources
        .map(|(index, any)| {
            secret(any, &version).map_err(|reason| DocumentError::Resource {
                file: file.clone(),
                index,
                reason,
            })
        })
        .collect()
}

fn secret(mut any: Any, version: &str) -> Result<FileSecret, String> {
    if message_name(&any) == RESOURCE {
        let wrapper = Resource::decode(any.value.as_slice()).map_err(|error| error.to_string())?;
        any = wrapper.resource.ok_or("is a wrapper without a resource")?;
    }
    if Some(message_name(&any)) != SECRET_TYPE.rsplit('/').next() {
        return Err(format!(
            "has the type `{}`; secrets are `{SECRET_TYPE}`",
            any.type_url
        ));
    }
    let message = Secret::decode(any.value.as_slice()).map_err(|error| error.to_string())?;
    Ok(FileSecret {
        name: message.name,
        version: version.to_owned(),
        bytes: any.value,
    })
}

fn message_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;

    use super::*;

    const YAML: &str = r#"
version_info: "7"
resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: server
  tls_certificate:
    certificate_chain: { filename: /a }
    private_key: { filename: /b }
- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
  name: roots
  resource:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: roots
    validation_context: { trusted_ca: { inline_string: x } }
"#;

    fn read_text(name: &str, text: &[u8]) -> Result<Vec<FileSecret>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let prefix = folder.path().display().to_string();
        read_secrets(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn check(name: &str, text: &str, complaint: &str) {
        assert_eq!(read_text(name, text.as_bytes()).unwrap_err(), complaint, "{text}");
    }

    #[test]
    fn secrets_are_read_from_yaml_json_and_protobuf_alike() {
        let secrets = read_text("s.yaml", YAML.as_bytes()).unwrap();
        let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
        assert_eq!(names, ["server", "roots"]);
        assert!(secrets.iter().all(|secret| secret.version == "7"));
        let decoded = crate::decode::secret(&secrets[0].bytes).unwrap();
        assert_eq!(decoded.value.name, "server");
        let json = r#"{"versionInfo": "7", "resources": [{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "server", "tlsCertificate": {"certificateChain": {"filename": "/a"}, "privateKey": {"filename": "/b"}}}]}"#;
        assert_eq!(read_text("s.json", json.as_bytes()).unwrap(), secrets[..1]);
        // Kubernetes mounts have names without an extension.
        assert_eq!(read_text("s", json.as_bytes()).unwrap(), secrets[..1]);
        let response = DiscoveryResponse {
            version_info: "7".to_owned(),
            resources: vec![Any {
                type_url: SECRET_TYPE.to_owned(),
                value: secrets[0].bytes.clone(),
            }],
            ..Default::default()
        };
        assert_eq!(
            read_text("s.pb", &response.encode_to_vec()).unwrap(),
            secrets[..1]
        );
    }

    #[test]
    fn complaints_say_where() {
        check(
            "s.yaml",
            "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  nam: x\n",
            "/s.yaml:3:3: resources[0].nam: envoy.extensions.transport_sockets.tls.v3.Secret has no such field; \
             did you mean `name`?",
        );
        check(
            "s.yaml",
            "resources: [\n",
            "/s.yaml:2:1: while parsing a node, did not find expected node content",
        );
        check(
            "s.yaml",
            "resources:\n- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: x\n",
            "/s.yaml:2:12: resources[0].@type: `type.googleapis.com/envoy.config.clus...` is not a type URL that this program knows",
        );
        check(
            "s.pb",
            "garbage",
            "/s.pb: no encoded DiscoveryResponse: failed to decode Protobuf message: invalid wire type value: 7",
        );
    }

    #[test]
    fn another_resource_is_no_secret() {
        let response = DiscoveryResponse {
            resources: vec![Any {
                type_url: crate::decode::CLUSTER_TYPE.to_owned(),
                value: Vec::new(),
            }],
            ..Default::default()
        };
        assert_eq!(
            read_text("s.pb", &response.encode_to_vec()).unwrap_err(),
            "/s.pb: resources[0]: has the type `type.googleapis.com/envoy.config.cluster.v3.Cluster`; secrets are \
             `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret`"
        );
    }

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        assert_eq!(
            read_secrets(Path::new("/dev/zero")).unwrap_err().to_string(),
            "/dev/zero: not a regular file"
        );
    }

    #[test]
    fn an_empty_file_is_half_a_write_and_no_answer() {
        check("s.yaml", "", "/s.yaml:1:1: the document is empty");
    }
}
