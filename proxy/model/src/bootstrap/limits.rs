//! Limits of downstream connections: the overload manager's, and those of runtime keys. Source: envoy/config/overload/v3/overload.proto;
//! Envoy docs, "Overload manager", limiting active connections, and "Listeners", runtime.
use std::collections::{BTreeMap, HashSet};

use envoy_types::pb::envoy::config::overload::v3 as pb;
use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use envoy_types::pb::google::protobuf::{self, value::Kind};

use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::listener::ListenerName;

/// The name that Envoy knows its monitor of connections by.
const MONITOR: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// How many downstream connections there may be at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionLimits {
    /// On all listeners together, by the overload manager (`max_active_downstream_connections`).
    pub most_downstream: Option<u64>,
    /// On all listeners together, by the runtime key `overload.global_downstream_max_connections`; listeners that the overload manager
    /// limits do not look at it.
    pub most_accepted: Option<u64>,
    /// On single listeners, by the runtime keys `envoy.resource_limits.listener.<name>.connection_limit`.
    pub most_on_listener: BTreeMap<ListenerName, u64>,
}

impl ConnectionLimits {
    /// Takes the overload manager's limit.
    pub(super) fn monitor(
        &mut self,
        at: &FieldPath<'_>,
        proto: Option<pb::OverloadManager>,
    ) -> Result<(), Rejection> {
        let Some(proto) = proto else { return Ok(()) };
        verdicts!(at, proto => pb::OverloadManager {
            partly { resource_monitors: "that of downstream connections; others are listed as without effect" }
            inert { refresh_interval: "paces monitors that do not exist here" }
            never {
                actions: "they answer monitors that do not exist here: the memory and CPU of a container are limited by the kernel",
                loadshed_points: "they answer monitors that do not exist here",
                buffer_factory_config: "finds streams whose buffers are large for an action; each stream's buffers have a fixed bound here",
            }
        });
        if resource_monitors.is_empty() {
            return Err(at.field("resource_monitors").reject("is empty"));
        }
        let mut names = HashSet::new();
        for (index, proto) in resource_monitors.into_iter().enumerate() {
            let at = at.field("resource_monitors").index(index);
            verdicts!(at, proto => pb::ResourceMonitor {
                supported { config_type }
                partly { name: "in rejections, and that of the monitor of connections must be Envoy's" }
            });
            choices!(pb::resource_monitor::ConfigType { supported { TypedConfig } });
            if !names.insert(name.clone()) {
                return Err(at
                    .field("name")
                    .reject(format!("another one has the name {name:?}")));
            }
            let any = config_type.map(|pb::resource_monitor::ConfigType::TypedConfig(any)| any);
            let config = at.field("typed_config");
            let opened = TypedConfig::open(&config, any)?;
            match (opened.type_name == types::DOWNSTREAM_CONNECTIONS, name == MONITOR) {
                (true, true) => self.most_downstream = Some(most(&config, opened.message(&config)?)?),
                (true, false) => return Err(at.field("name").reject(format!("must be {MONITOR:?}"))),
                (false, true) => {
                    return Err(config.reject(format!("must be {}", types::DOWNSTREAM_CONNECTIONS)));
                }
                (false, false) => at.problem(
                    "has no effect here: the memory and CPU of a container are limited by the kernel",
                ),
            }
        }
        Ok(())
    }

    /// Takes the keys of a static layer that are read here; the others are listed. A later layer counts before an earlier one.
    pub(super) fn runtime(&mut self, at: FieldPath<'_>, prefix: &str, layer: protobuf::Struct) {
        let mut entries: Vec<_> = layer.fields.into_iter().collect();
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, value) in entries {
            let key = format!("{prefix}{key}");
            match value.kind {
                Some(Kind::StructValue(inner)) if !is_fraction(&inner) => {
                    self.runtime(at, &format!("{key}."), inner);
                }
                kind => match self.set(&key, number(kind)) {
                    Known::Taken => {}
                    Known::NoNumber => at
                        .key(&key)
                        .problem("is no number of connections, and limits nothing"),
                    Known::Not => at.key(&key).problem("has no effect here"),
                },
            }
        }
    }

    fn set(&mut self, key: &str, most: Option<u64>) -> Known {
        let listener = key
            .strip_prefix("envoy.resource_limits.listener.")
            .and_then(|rest| rest.strip_suffix(".connection_limit"));
        match (key, listener, most) {
            ("overload.global_downstream_max_connections", _, Some(most)) => self.most_accepted = Some(most),
            (_, Some(listener), Some(most)) => {
                self.most_on_listener.insert(listener.to_owned(), most);
            }
            ("overload.global_downstream_max_connections", _, None) | (_, Some(_), None) => {
                return Known::NoNumber;
            }
            (_, None, _) => return Known::Not,
        }
        Known::Taken
    }
}

/// Whether a runtime key is read here.
enum Known {
    Taken,
    NoNumber,
    Not,
}

fn most(at: &FieldPath<'_>, proto: DownstreamConnectionsConfig) -> Result<u64, Rejection> {
    verdicts!(at, proto => DownstreamConnectionsConfig { supported { max_active_downstream_connections } });
    match u64::try_from(max_active_downstream_connections) {
        Ok(most) if most > 0 => Ok(most),
        _ => Err(at
            .field("max_active_downstream_connections")
            .reject(format!("{max_active_downstream_connections} is not above 0"))),
    }
}

/// A `FractionalPercent`, which is one value. Source: Envoy `SnapshotImpl::walkProtoValue`.
fn is_fraction(value: &protobuf::Struct) -> bool {
    let is_part = |key: &String| key == "numerator" || key == "denominator";
    !value.fields.is_empty() && value.fields.keys().all(is_part)
}

fn number(kind: Option<Kind>) -> Option<u64> {
    match kind? {
        // In range and whole by the guard, so the cast changes nothing.
        Kind::NumberValue(value) if value >= 0.0 && value.fract() == 0.0 && value < 1.8e19 => {
            Some(value as u64)
        }
        Kind::StringValue(text) => text.trim().parse().ok(),
        _ => None,
    }
}
