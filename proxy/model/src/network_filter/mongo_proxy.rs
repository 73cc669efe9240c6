//! What is counted of MongoDB's clients. Source: envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.proto.
use std::path::PathBuf;

use envoy_types::pb::envoy::extensions::filters::network::mongo_proxy::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::http_filter::fault::FaultDelay;
use crate::scalar::Wrapped;

/// Counts what a MongoDB client asks. The bytes pass as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongoProxy {
    /// Stats are `mongo.<stat_prefix>.`.
    pub stat_prefix: String,
    /// A line a message goes there.
    pub log_path: Option<PathBuf>,
    /// Before a request goes on.
    pub request_delay: Option<FaultDelay>,
    /// Commands that have counters of their own; empty: `delete`, `insert` and `update`.
    pub commands: Vec<String>,
    /// BSON nested deeper ends the counting; Envoy's default 100.
    pub max_bson_depth: u32,
}

/// `max_bson_depth` when unset.
const MAX_BSON_DEPTH: u32 = 100;

impl MongoProxy {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::MongoProxy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::MongoProxy {
            supported { stat_prefix, access_log, delay, commands, max_bson_depth }
            unsupported { emit_dynamic_metadata: "telemetry" }
        });
        let depth = max_bson_depth.value().unwrap_or(MAX_BSON_DEPTH);
        let delay = delay.map(|proto| FaultDelay::from_proto(&at.field("delay"), proto));
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            log_path: (!access_log.is_empty()).then(|| access_log.into()),
            request_delay: delay.transpose()?,
            commands,
            max_bson_depth: at.field("max_bson_depth").within(depth, 1..=u32::MAX)?,
        })
    }
}
