//! MongoDB proxy: passes bytes on; its counters come with the traffic issue.
//! Source: envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.proto.
use envoy_types::pb::envoy::extensions::filters::network::mongo_proxy::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::http_filter::fault::FaultDelay;
use crate::scalar::Wrapped;

/// Counts what a MongoDB client asks. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongoProxy {
    /// Stats are `mongo.<stat_prefix>.`.
    pub stat_prefix: String,
    /// Before a request goes on.
    pub delay: Option<FaultDelay>,
    /// Commands that have counters of their own.
    pub commands: Vec<String>,
    /// BSON nested deeper ends the connection; `None`: Envoy's default.
    pub max_bson_depth: Option<u32>,
}

impl MongoProxy {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::MongoProxy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::MongoProxy {
            awaited "traffic" { stat_prefix, delay, commands, max_bson_depth }
            unsupported { access_log: "traffic", emit_dynamic_metadata: "traffic" }
        });
        let field = at.field("max_bson_depth");
        let depth = max_bson_depth
            .value()
            .map(|depth| field.within(depth, 1..=u32::MAX));
        let delay = delay.map(|proto| FaultDelay::from_proto(&at.field("delay"), proto));
        at.problem("passes bytes on and counts nothing here: the traffic issue builds it");
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            delay: delay.transpose()?,
            commands,
            max_bson_depth: depth.transpose()?,
        })
    }
}
