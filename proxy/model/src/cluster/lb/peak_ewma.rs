//! `envoy.load_balancing_policies.peak_ewma`, of Envoy's contrib build: by hand, since no published crate has the message.
//!
//! Source: envoy api/contrib/envoy/extensions/load_balancing_policies/peak_ewma/v3alpha/peak_ewma.proto.
use std::time::Duration;

use envoy_types::pb::google::protobuf;
use prost::Message;

use crate::any::FromJson;
use crate::cluster::LbPolicy;
use crate::field::{FieldPath, Rejection};

/// `envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PeakEwma {
    #[prost(message, optional, tag = "1")]
    decay_time: Option<protobuf::Duration>,
    /// How often Envoy's threads exchange samples; ours share them.
    #[prost(message, optional, tag = "2")]
    aggregation_interval: Option<protobuf::Duration>,
    /// How many samples Envoy's threads hold back; ours hold back none.
    #[prost(message, optional, tag = "3")]
    max_samples_per_host: Option<protobuf::UInt32Value>,
    #[prost(message, optional, tag = "4")]
    default_rtt: Option<protobuf::Duration>,
    /// Of hosts without a cost; ours have one.
    #[prost(message, optional, tag = "5")]
    penalty_value: Option<protobuf::DoubleValue>,
}

const DECAY: Duration = Duration::from_secs(10);
const DEFAULT_RTT: Duration = Duration::from_millis(10);

impl PeakEwma {
    /// The policy; what is unset has Envoy's default.
    pub(super) fn into_policy(self, at: &FieldPath<'_>) -> Result<LbPolicy, Rejection> {
        let Self {
            decay_time,
            aggregation_interval: _,
            max_samples_per_host: _,
            default_rtt,
            penalty_value: _,
        } = self;
        Ok(LbPolicy::PeakEwma {
            decay: at.field("decay_time").positive(decay_time)?.unwrap_or(DECAY),
            default_rtt: at
                .field("default_rtt")
                .positive(default_rtt)?
                .unwrap_or(DEFAULT_RTT),
        })
    }
}

impl FromJson for PeakEwma {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        let mut message = Self::default();
        for (key, value) in json.fields {
            let at = at.field(&key);
            let Some(protobuf::value::Kind::StringValue(text)) = value.kind else {
                return Err(at.reject("is no duration such as \"10s\""));
            };
            let duration = duration(&text)
                .ok_or_else(|| at.reject(format!("{text:?} is no duration such as \"10s\"")))?;
            match key.as_str() {
                "decay_time" | "decayTime" => message.decay_time = Some(duration),
                "default_rtt" | "defaultRtt" => message.default_rtt = Some(duration),
                "aggregation_interval" | "aggregationInterval" => {
                    message.aggregation_interval = Some(duration)
                }
                _ => {
                    return Err(
                        at.reject("is not supported in a TypedStruct; decay_time and default_rtt are")
                    );
                }
            }
        }
        Ok(message)
    }
}

/// `0.010s`.
fn duration(text: &str) -> Option<protobuf::Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    let whole = Duration::try_from_secs_f64(seconds).ok()?;
    Some(protobuf::Duration {
        seconds: i64::try_from(whole.as_secs()).ok()?,
        nanos: i32::try_from(whole.subsec_nanos()).ok()?,
    })
}
