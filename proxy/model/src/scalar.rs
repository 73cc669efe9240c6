//! Protobuf's small types as Rust's: wrappers, durations, percentages, enum numbers.
use std::time::Duration;

use envoy_types::pb::envoy::r#type::v3 as pb;
use envoy_types::pb::google::protobuf;

use crate::cluster::Percent;
use crate::field::{FieldPath, Rejection, verdicts};

/// google/protobuf/duration.proto: 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A wrapped or plain message's value, if there is one.
pub(crate) trait Wrapped {
    /// What is wrapped.
    type Value;
    /// Unwraps.
    fn value(self) -> Option<Self::Value>;
}

impl Wrapped for Option<protobuf::BoolValue> {
    type Value = bool;
    fn value(self) -> Option<bool> {
        self.map(|protobuf::BoolValue { value }| value)
    }
}

impl Wrapped for Option<protobuf::UInt32Value> {
    type Value = u32;
    fn value(self) -> Option<u32> {
        self.map(|protobuf::UInt32Value { value }| value)
    }
}

impl FieldPath<'_> {
    /// A duration, if set.
    ///
    /// # Errors
    /// Negative, out of range, or nanoseconds that are no part of a second.
    pub(crate) fn duration(&self, proto: Option<protobuf::Duration>) -> Result<Option<Duration>, Rejection> {
        let Some(protobuf::Duration { seconds, nanos }) = proto else {
            return Ok(None);
        };
        match (u64::try_from(seconds), u32::try_from(nanos)) {
            (Ok(seconds), Ok(nanos)) if seconds <= MAX_SECONDS && nanos < 1_000_000_000 => {
                Ok(Some(Duration::new(seconds, nanos)))
            }
            _ => Err(self.reject(format!(
                "{seconds} s and {nanos} ns is no duration from 0 to 10,000 years"
            ))),
        }
    }

    /// A time limit where unset means `default` and zero means none.
    pub(crate) fn limit(
        &self,
        proto: Option<protobuf::Duration>,
        default: Duration,
    ) -> Result<Option<Duration>, Rejection> {
        Ok(not_zero(self.duration(proto)?.unwrap_or(default)))
    }

    /// A duration that must be longer than nothing.
    pub(crate) fn positive(&self, proto: Option<protobuf::Duration>) -> Result<Option<Duration>, Rejection> {
        match self.duration(proto)? {
            Some(Duration::ZERO) => Err(self.reject("must be longer than 0s")),
            other => Ok(other),
        }
    }

    /// A percentage, if set. A present but empty message is 0 %.
    pub(crate) fn percent(&self, proto: Option<pb::Percent>) -> Result<Option<Percent>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(self, proto => pb::Percent { supported { value } });
        if !(0.0..=100.0).contains(&value) {
            return Err(self.reject(format!("{value} is not between 0 and 100")));
        }
        // In range by the line above, so the cast neither wraps nor saturates.
        Ok(Some(Percent((value * 100.0).round() as u32)))
    }

    /// A port, 0 included.
    pub(crate) fn port(&self, value: u32) -> Result<u16, Rejection> {
        u16::try_from(value).map_err(|_| self.reject(format!("{value} is no port; the largest is 65535")))
    }

    /// A number within limits that Envoy's protos set.
    pub(crate) fn within(&self, value: u32, limits: std::ops::RangeInclusive<u32>) -> Result<u32, Rejection> {
        if limits.contains(&value) {
            return Ok(value);
        }
        Err(self.reject(format!(
            "{value} is not between {} and {}",
            limits.start(),
            limits.end()
        )))
    }

    /// A large number within limits that Envoy's protos set.
    pub(crate) fn within_u64(
        &self,
        value: u64,
        limits: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, Rejection> {
        if limits.contains(&value) {
            return Ok(value);
        }
        Err(self.reject(format!(
            "{value} is not between {} and {}",
            limits.start(),
            limits.end()
        )))
    }

    /// A status code within limits that Envoy's protos set.
    pub(crate) fn status(&self, code: u32, limits: std::ops::RangeInclusive<u16>) -> Result<u16, Rejection> {
        match u16::try_from(code) {
            Ok(code) if limits.contains(&code) => Ok(code),
            _ => Err(self.reject(format!(
                "{code} is not between {} and {}",
                limits.start(),
                limits.end()
            ))),
        }
    }

    /// An enum number as its type.
    pub(crate) fn enumeration<E: TryFrom<i32>>(&self, number: i32) -> Result<E, Rejection> {
        E::try_from(number).map_err(|_| self.reject(format!("{number} is no value of this enum")))
    }

    /// A string that must not be empty.
    pub(crate) fn not_empty(&self, text: String) -> Result<String, Rejection> {
        if text.is_empty() {
            Err(self.reject("must not be empty"))
        } else {
            Ok(text)
        }
    }

    /// A message that must be there.
    pub(crate) fn required<T>(&self, proto: Option<T>) -> Result<T, Rejection> {
        proto.ok_or_else(|| self.reject("is missing"))
    }

    /// Refuses `true`.
    pub(crate) fn only_false(
        &self,
        proto: Option<protobuf::BoolValue>,
        consequence: &str,
    ) -> Result<(), Rejection> {
        match proto.value() {
            Some(true) => Err(self.reject(format!("is not supported, and {consequence}"))),
            _ => Ok(()),
        }
    }
}

/// Zero means that there is no limit.
pub(crate) fn not_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Context;

    fn duration(seconds: i64, nanos: i32) -> Result<Option<Duration>, Rejection> {
        Context::new("test", "t")
            .root()
            .duration(Some(protobuf::Duration { seconds, nanos }))
    }

    #[test]
    fn durations_are_within_ten_thousand_years() {
        assert_eq!(duration(1, 5).unwrap(), Some(Duration::new(1, 5)));
        assert_eq!(
            duration(9_223_372_035, 0).unwrap(),
            Some(Duration::from_secs(9_223_372_035))
        );
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
        ] {
            assert!(duration(seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn percentages_are_numbers_from_0_to_100() {
        let context = Context::new("test", "t");
        let percent = |value| context.root().percent(Some(pb::Percent { value }));
        assert_eq!(percent(0.0).unwrap(), Some(Percent(0)));
        assert_eq!(percent(99.99).unwrap(), Some(Percent(9_999)));
        for value in [f64::NAN, -0.1, 100.1, f64::INFINITY] {
            assert!(percent(value).is_err(), "{value}");
        }
    }
}
