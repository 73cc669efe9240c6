//! A recorded delta stream: what istiod sent to one client, in steps.

use std::path::Path;

use bytes::Buf;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use super::resource::{self, CaptureError};

/// The responses that followed one change an operator made.
#[derive(Clone, Debug)]
pub struct RecordedStep {
    /// What was changed, as the recorder noted it.
    pub name: String,
    /// In the order in which they came.
    pub responses: Vec<DeltaDiscoveryResponse>,
}

/// A recorded delta stream. The first step holds the answers to the client's first subscriptions.
#[derive(Clone, Debug)]
pub struct Recording {
    /// In the order in which they happened.
    pub steps: Vec<RecordedStep>,
}

impl Recording {
    /// Reads `path` (4-byte big-endian length and `DeltaDiscoveryResponse`, repeated) and, beside it with the extension
    /// `json`, how many responses belong to each step.
    ///
    /// # Errors
    /// [`CaptureError`] when a file is unreadable, or when the two do not fit together.
    pub fn read(path: &Path) -> Result<Self, CaptureError> {
        let malformed = |reason: String| CaptureError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let mut responses = split(&resource::read(path)?).map_err(malformed)?.into_iter();
        let index = resource::read(&path.with_extension("json"))?;
        let index: serde_json::Value =
            serde_json::from_slice(&index).map_err(|error| malformed(error.to_string()))?;
        let steps = index["steps"]
            .as_array()
            .ok_or_else(|| malformed("no steps in its json".to_owned()))?;
        let mut read = Vec::new();
        for step in steps {
            let name = step["step"].as_str().unwrap_or_default().to_owned();
            let count = step["responses"]
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(0);
            let responses: Vec<_> = responses.by_ref().take(count).collect();
            if responses.len() != count {
                return Err(malformed(format!(
                    "step {name}: {} responses, {count} expected",
                    responses.len()
                )));
            }
            read.push(RecordedStep { name, responses });
        }
        match responses.len() {
            0 => Ok(Self { steps: read }),
            left => Err(malformed(format!("{left} responses belong to no step"))),
        }
    }

    /// Applies `change` to every resource.
    #[must_use]
    pub fn map(mut self, change: impl Fn(Any) -> Any) -> Self {
        let responses = self.steps.iter_mut().flat_map(|step| &mut step.responses);
        for resource in responses.flat_map(|response| &mut response.resources) {
            resource.resource = resource.resource.take().map(&change);
        }
        self
    }
}

fn split(mut bytes: &[u8]) -> Result<Vec<DeltaDiscoveryResponse>, String> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.try_get_u32().map_err(|error| error.to_string())? as usize;
        let (message, rest) = bytes
            .split_at_checked(length)
            .ok_or("the last response is cut off")?;
        responses.push(DeltaDiscoveryResponse::decode(message).map_err(|error| error.to_string())?);
        bytes = rest;
    }
    Ok(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<usize, &str>) {
        let found = split(bytes).map(|responses| responses.len());
        assert_eq!(
            found.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|text| *text)
        );
    }

    #[test]
    fn a_recording_is_length_and_message_repeated() {
        let message = DeltaDiscoveryResponse {
            nonce: "a".to_owned(),
            ..Default::default()
        }
        .encode_to_vec();
        let mut bytes = (message.len() as u32).to_be_bytes().to_vec();
        bytes.extend(&message);
        bytes.extend(bytes.clone());
        check(&bytes, Ok(2));
        check(&bytes[..bytes.len() - 1], Err("the last response is cut off"));
        check(&[], Ok(0));
    }
}
