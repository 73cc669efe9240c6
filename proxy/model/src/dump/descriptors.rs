//! The descriptor pools: names and types of every message, made by `build.rs`.
//!
//! The full pool costs 17 MB and 24 ms with all of Envoy's options in it, so it is built for one answer and
//! dropped.
use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor};

mod subset;

use subset::Index;

static FULL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/full.binpb.zst"));
static BOOTSTRAP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bootstrap.binpb.zst"));
static EXTENSIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/extensions.binpb.zst"));
static SECRETS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/secrets.binpb.zst"));
/// Sorted, one full name a line.
static SENSITIVE: &str = include_str!(concat!(env!("OUT_DIR"), "/sensitive.txt"));

/// Why a descriptor set inside this program cannot be used: the build is broken, nothing a user can repair.
#[derive(Debug, thiserror::Error)]
#[error("descriptor set of this build is damaged: {0}; rebuild the program")]
pub struct DescriptorsError(String);

/// Message descriptors. Keep one only as long as an answer takes.
#[derive(Debug)]
pub struct Descriptors {
    pool: DescriptorPool,
    sensitive: Vec<&'static str>,
}

impl Descriptors {
    /// Every message of Envoy and the Istio ones that istiod sends. Milliseconds and megabytes: not on a
    /// worker, not at start.
    ///
    /// # Errors
    /// Only for a broken build.
    pub fn full() -> Result<Self, DescriptorsError> {
        Self::decode(FULL)
    }

    /// What is needed to print these messages and whatever these contents hold in an `Any`; less than half of [`Self::full`] for a sidecar.
    ///
    /// # Errors
    /// Only for a broken build.
    pub fn of<'c>(
        messages: &[&str],
        contents: impl Iterator<Item = &'c [u8]>,
    ) -> Result<Self, DescriptorsError> {
        let set = decompress(FULL)?;
        let index = Index::new(&set);
        let mut files = BTreeSet::new();
        messages
            .iter()
            .for_each(|message| index.named(message, &mut files));
        contents.for_each(|content| index.named_in(content, &mut files));
        let subset = index.closure(files);
        drop(index);
        drop(set);
        Self::of_set(&subset)
    }

    /// What a bootstrap file usually names; a fraction of [`Self::full`].
    pub(crate) fn bootstrap() -> Result<Self, DescriptorsError> {
        Self::decode(BOOTSTRAP)
    }

    /// The extensions that come as a `TypedStruct`.
    pub(crate) fn extensions() -> Result<Self, DescriptorsError> {
        Self::decode(EXTENSIONS)
    }

    /// What a file of secrets names.
    pub(crate) fn secrets() -> Result<Self, DescriptorsError> {
        Self::decode(SECRETS)
    }

    fn decode(compressed: &[u8]) -> Result<Self, DescriptorsError> {
        Self::of_set(&decompress(compressed)?)
    }

    fn of_set(set: &[u8]) -> Result<Self, DescriptorsError> {
        let pool = DescriptorPool::decode(set).map_err(|error| DescriptorsError(error.to_string()))?;
        Ok(Self {
            pool,
            sensitive: SENSITIVE.lines().collect(),
        })
    }

    /// By full name, as `envoy.config.cluster.v3.Cluster`.
    pub(crate) fn message(&self, full_name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(full_name)
    }

    /// By the URL of an `Any`; what stands before the last `/` is ignored, as everywhere.
    pub(crate) fn by_url(&self, type_url: &str) -> Option<MessageDescriptor> {
        self.message(type_url.rsplit('/').next()?)
    }

    /// The bytes as a message; `None`: type unknown here, or not an encoding of it.
    pub(crate) fn decode_any(&self, type_url: &str, value: &[u8]) -> Option<DynamicMessage> {
        DynamicMessage::decode(self.by_url(type_url)?, value).ok()
    }

    /// Marked `udpa.annotations.sensitive`.
    pub(crate) fn is_sensitive(&self, field: &FieldDescriptor) -> bool {
        self.sensitive.binary_search(&field.full_name()).is_ok()
    }

    /// Full names of all messages, in no order.
    pub(crate) fn message_names(&self) -> impl Iterator<Item = String> + '_ {
        self.pool
            .all_messages()
            .map(|message| message.full_name().to_owned())
    }
}

fn decompress(set: &[u8]) -> Result<Vec<u8>, DescriptorsError> {
    zstd::decode_all(set).map_err(|error| DescriptorsError(error.to_string()))
}
