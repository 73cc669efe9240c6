//! Protobuf to [`OutlierDetection`]. Source and defaults: envoy/config/cluster/v3/outlier_detection.proto.
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::google::protobuf;

use super::OutlierDetection;
use crate::field::{FieldPath, Rejection, verdicts};
use crate::scalar::Wrapped;

const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

impl OutlierDetection {
    /// Converts the settings; what is unset has Envoy's default.
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: pb::OutlierDetection) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::OutlierDetection {
            supported {
                consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
                enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
                consecutive_gateway_failure, enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
                consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
                enforcing_local_origin_success_rate, failure_percentage_threshold, enforcing_failure_percentage,
                enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
                failure_percentage_request_volume, max_ejection_time, max_ejection_time_jitter,
                successful_active_health_check_uneject_host, always_eject_one_host, detect_degraded_hosts,
            }
            inert { monitors: "Envoy hides it from users, and does nothing with it either" }
        });
        let number = |proto: Option<protobuf::UInt32Value>, default| proto.value().unwrap_or(default);
        let percent = |field, proto: Option<protobuf::UInt32Value>, default| {
            at.field(field).within(number(proto, default), 0..=100)
        };
        let positive =
            |field, proto, default| Ok::<_, Rejection>(at.field(field).positive(proto)?.unwrap_or(default));
        let base_ejection_time = positive("base_ejection_time", base_ejection_time, BASE_EJECTION_TIME)?;
        Ok(Self {
            consecutive_5xx: number(consecutive_5xx, 5),
            consecutive_gateway_failure: number(consecutive_gateway_failure, 5),
            consecutive_local_origin_failure: number(consecutive_local_origin_failure, 5),
            interval: positive("interval", interval, INTERVAL)?,
            base_ejection_time,
            max_ejection_time: positive(
                "max_ejection_time",
                max_ejection_time,
                MAX_EJECTION_TIME.max(base_ejection_time),
            )?,
            max_ejection_time_jitter: at
                .field("max_ejection_time_jitter")
                .duration(max_ejection_time_jitter)?
                .unwrap_or_default(),
            max_ejection_percent: percent("max_ejection_percent", max_ejection_percent, 10)?,
            enforcing_consecutive_5xx: percent("enforcing_consecutive_5xx", enforcing_consecutive_5xx, 100)?,
            enforcing_consecutive_gateway_failure: percent(
                "enforcing_consecutive_gateway_failure",
                enforcing_consecutive_gateway_failure,
                0,
            )?,
            enforcing_consecutive_local_origin_failure: percent(
                "enforcing_consecutive_local_origin_failure",
                enforcing_consecutive_local_origin_failure,
                100,
            )?,
            enforcing_success_rate: percent("enforcing_success_rate", enforcing_success_rate, 100)?,
            enforcing_local_origin_success_rate: percent(
                "enforcing_local_origin_success_rate",
                enforcing_local_origin_success_rate,
                100,
            )?,
            success_rate_minimum_hosts: number(success_rate_minimum_hosts, 5),
            success_rate_request_volume: number(success_rate_request_volume, 100),
            success_rate_stdev_factor: number(success_rate_stdev_factor, 1900),
            failure_percentage_threshold: percent(
                "failure_percentage_threshold",
                failure_percentage_threshold,
                85,
            )?,
            enforcing_failure_percentage: percent(
                "enforcing_failure_percentage",
                enforcing_failure_percentage,
                0,
            )?,
            enforcing_failure_percentage_local_origin: percent(
                "enforcing_failure_percentage_local_origin",
                enforcing_failure_percentage_local_origin,
                0,
            )?,
            failure_percentage_minimum_hosts: number(failure_percentage_minimum_hosts, 5),
            failure_percentage_request_volume: number(failure_percentage_request_volume, 50),
            splits_local_origin_errors: split_external_local_origin_errors,
            successful_health_check_unejects: successful_active_health_check_uneject_host
                .value()
                .unwrap_or(true),
            always_ejects_one_host: always_eject_one_host.value().unwrap_or(false),
            detects_degraded_hosts: detect_degraded_hosts.value().unwrap_or(false),
        })
    }
}
