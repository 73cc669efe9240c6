//! Documents that people write: the bootstrap file, files of secrets, the demo's resources; YAML or JSON, by the proto JSON mapping.
//!
//! Owns text → message with a place and a path in every complaint; knows nothing of what the fields mean.
//! Reads what Envoy 1.40 reads (`source/common/protobuf/yaml_utility.cc`; checked with `envoy --mode
//! validate`), and refuses two things that Envoy silently half-reads: a key that stands twice, and a second
//! YAML document.
mod decode;
mod json;
mod nearest;
mod placed;
mod responses;
mod scalar;
mod secrets;
mod shape;
mod tree;
mod untyped;
mod well_known;
mod write;
mod yaml;

use std::io::{self, Read as _};
use std::path::Path;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::core::v3::BuildVersion;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use prost::Message as _;
use prost_reflect::DynamicMessage;

use crate::dump::{Descriptors, DescriptorsError};
use decode::{Decoder, Fault};
pub use placed::Document;
pub(crate) use placed::{Segment, segments};
use tree::Node;
pub use write::json_as_yaml;

pub use responses::{read_response, request_to_json, response_from_json};
pub use secrets::{FileSecret, read_secrets};
pub(crate) use untyped::{Complaint, Untyped, message_of_struct};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// How a complaint names the text of `--config-yaml`.
const OVERRIDES: &str = "--config-yaml";

/// Larger files are refused unread: a device file has no end.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What to do with a field that the message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// As Envoy by default.
    Refuse,
    /// Envoy's `--allow-unknown-static-fields`.
    Ignore,
}

/// Why a document is not a message. All but the last are the author's to repair.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// As given.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not YAML, not JSON, or nested too deeply.
    #[error("{file}:{line}:{column}: {reason}")]
    Syntax {
        /// As given.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A field that does not exist, or does not take this value.
    #[error("{file}:{line}:{column}: {path}: {reason}{}", did_you_mean(.nearest.as_deref()))]
    Field {
        /// As given.
        file: String,
        /// Of the key or value, from 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// As `static_resources.clusters[0].connect_timeout`.
        path: String,
        /// What is wrong.
        reason: String,
        /// The valid name that looks most like the given one.
        nearest: Option<String>,
    },
    /// A valid document whose message nothing can decode: values nested beyond protobuf's limit of 100.
    #[error("{file}: {reason}; nest values less deeply")]
    TooDeep {
        /// As given.
        file: String,
        /// What the decoder said.
        reason: String,
    },
    /// A resource that is no secret, or cannot be decoded.
    #[error("{file}: resources[{index}]: {reason}")]
    Resource {
        /// As given.
        file: String,
        /// From 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A broken build.
    #[error(transparent)]
    Descriptors(#[from] DescriptorsError),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// Reads the bootstrap: the message, and its encoding for `/config_dump`. `overrides` is YAML that is merged
/// over the file as protobuf merges: lists grow, scalars are replaced. JSON when the file name ends in
/// `.json`; without `.yaml` or `.yml` either, when the text begins with `{`.
///
/// # Errors
/// [`DocumentError`], with line, column and field path where there are any.
pub fn read_bootstrap(
    path: &Path,
    overrides: Option<&str>,
    unknown: UnknownFields,
) -> Result<(Bootstrap, Vec<u8>), DocumentError> {
    let file = path.display().to_string();
    let text = read(path).map_err(|source| DocumentError::Read {
        file: file.clone(),
        source,
    })?;
    parse_bootstrap(&file, &text, overrides, unknown)
}

/// The bytes of a bootstrap that was changed after it was read.
pub fn encoded_bootstrap(message: &Bootstrap) -> Vec<u8> {
    message.encode_to_vec()
}

/// As [`read_bootstrap`], of a text; `file` is for the format and the complaints.
///
/// # Errors
/// As [`read_bootstrap`].
pub fn parse_bootstrap(
    file: &str,
    text: &[u8],
    overrides: Option<&str>,
    unknown: UnknownFields,
) -> Result<(Bootstrap, Vec<u8>), DocumentError> {
    let base = Source::new(file, text, Format::of(file, text))?;
    let overrides = overrides
        .map(|text| Source::new(OVERRIDES, text.as_bytes(), Format::Yaml))
        .transpose()?;
    let sources: Vec<Source> = std::iter::once(base).chain(overrides).collect();
    // Building the large set costs tens of milliseconds of every start, and hardly any bootstrap needs it.
    let small = merged(&Descriptors::bootstrap()?, BOOTSTRAP, &sources, unknown);
    let message = match small {
        Err(Refusal::Fault(fault)) if fault.0.unknown_type => {
            merged(&Descriptors::full()?, BOOTSTRAP, &sources, unknown)
        }
        other => other,
    };
    let bytes = message.map_err(Refusal::into_error)?;
    let mut message = Bootstrap::decode(bytes.as_slice()).map_err(|error| too_deep(file, &error))?;
    let bytes = if introduce(&mut message) {
        message.encode_to_vec()
    } else {
        bytes
    };
    Ok((message, bytes))
}

/// Fills what Envoy fills in itself: who speaks, in the version whose behaviour is kept. istiod and `istioctl` read it. True: changed.
fn introduce(message: &mut Bootstrap) -> bool {
    let node = message.node.get_or_insert_default();
    if !node.user_agent_name.is_empty() {
        return false;
    }
    "envoy".clone_into(&mut node.user_agent_name);
    let version = SemanticVersion {
        major_number: 1,
        minor_number: 40,
        patch: 0,
    };
    let version = BuildVersion {
        version: Some(version),
        metadata: None,
    };
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(version));
    true
}

fn too_deep(file: &str, error: &prost::DecodeError) -> DocumentError {
    DocumentError::TooDeep {
        file: file.to_owned(),
        reason: error.to_string(),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let reason = format!("larger than {MAX_FILE_BYTES} bytes; is this configuration?");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

impl Format {
    fn of(file: &str, text: &[u8]) -> Self {
        match file.rsplit_once('.').map(|(_, extension)| extension) {
            Some("json") => Self::Json,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::of_text(text),
        }
    }
}

impl Format {
    fn of_text(text: &[u8]) -> Self {
        match text.trim_ascii_start() {
            [b'{', ..] => Self::Json,
            // What a tool prints as a list of resources.
            [b'[', rest @ ..] if rest.trim_ascii_start().first() == Some(&b'{') => Self::Json,
            _ => Self::Yaml,
        }
    }
}

/// A text, parsed but not yet understood.
struct Source {
    name: String,
    tree: Node,
}

impl Source {
    fn new(name: &str, text: &[u8], format: Format) -> Result<Self, DocumentError> {
        let tree = tree::utf8(text).and_then(|text| match format {
            Format::Json => json::parse(text),
            Format::Yaml => yaml::parse(text),
        });
        let tree = tree.map_err(|error| DocumentError::Syntax {
            file: name.to_owned(),
            line: error.at.line,
            column: error.at.column,
            reason: error.reason,
        })?;
        Ok(Self {
            name: name.to_owned(),
            tree,
        })
    }
}

/// A fault with the file that it is in.
struct Located(Fault, String);

enum Refusal {
    Fault(Box<Located>),
    TooDeep(DocumentError),
}

impl Refusal {
    fn into_error(self) -> DocumentError {
        match self {
            Self::TooDeep(error) => error,
            Self::Fault(located) => {
                let Located(fault, file) = *located;
                let Fault {
                    at,
                    path,
                    reason,
                    nearest,
                    ..
                } = fault;
                DocumentError::Field {
                    file,
                    line: at.line,
                    column: at.column,
                    path,
                    reason,
                    nearest,
                }
            }
        }
    }
}

/// The encoding of all sources as the message of that name, each merged over the one before it.
fn merged(
    descriptors: &Descriptors,
    full_name: &str,
    sources: &[Source],
    unknown: UnknownFields,
) -> Result<Vec<u8>, Refusal> {
    let mut merged: Option<DynamicMessage> = None;
    for source in sources {
        let message = Decoder::new(descriptors, unknown)
            .document(&source.tree, full_name)
            .map_err(|fault| Refusal::Fault(Box::new(Located(fault, source.name.clone()))))?;
        match &mut merged {
            None => merged = Some(message),
            // Protobuf's merge is what decoding one encoding after the other does.
            Some(merged) => merged
                .merge(message.encode_to_vec().as_slice())
                .map_err(|error| Refusal::TooDeep(too_deep(&source.name, &error)))?,
        }
    }
    Ok(merged.map(|message| message.encode_to_vec()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
