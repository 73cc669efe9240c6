//! Shares of requests, numbers with a fraction, and the values of runtime keys. Source: envoy/type/v3/percent.proto, core/v3/base.proto.
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3::{self as pb, fractional_percent::DenominatorType};

use crate::field::{FieldPath, Rejection, verdicts};

/// A share in parts of a million, 0..=1_000_000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction(pub u32);

/// A number with a fraction. Conversion refuses NaN and infinity, so equality is total.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Decimal(pub f64);

impl Eq for Decimal {}

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self(1_000_000);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Converts a numerator and its denominator. More than the whole is the whole, as in Envoy.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::FractionalPercent) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FractionalPercent { supported { numerator, denominator } });
        let unit = match at.field("denominator").enumeration(denominator)? {
            DenominatorType::Hundred => 10_000,
            DenominatorType::TenThousand => 100,
            DenominatorType::Million => 1,
        };
        Ok(Self(numerator.saturating_mul(unit).min(Self::ALL.0)))
    }

    /// Converts the default of a runtime key; there is no runtime that could say otherwise.
    pub(crate) fn from_runtime(
        at: &FieldPath<'_>,
        proto: core::RuntimeFractionalPercent,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::RuntimeFractionalPercent {
            supported { default_value }
            inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
        });
        let at = at.field("default_value");
        Self::from_proto(&at, at.required(default_value)?)
    }
}

impl FieldPath<'_> {
    /// A share behind a runtime key, if set.
    pub(crate) fn runtime_fraction(
        &self,
        proto: Option<core::RuntimeFractionalPercent>,
    ) -> Result<Option<Fraction>, Rejection> {
        proto.map(|proto| Fraction::from_runtime(self, proto)).transpose()
    }

    /// A share, if set.
    pub(crate) fn fraction(
        &self,
        proto: Option<pb::FractionalPercent>,
    ) -> Result<Option<Fraction>, Rejection> {
        proto.map(|proto| Fraction::from_proto(self, proto)).transpose()
    }

    /// A finite number behind a runtime key, if set.
    pub(crate) fn runtime_double(
        &self,
        proto: Option<core::RuntimeDouble>,
    ) -> Result<Option<Decimal>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(self, proto => core::RuntimeDouble {
            supported { default_value }
            inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
        });
        if !default_value.is_finite() {
            return Err(self
                .field("default_value")
                .reject(format!("{default_value} is no finite number")));
        }
        Ok(Some(Decimal(default_value)))
    }

    /// A whole number behind a runtime key, if set.
    pub(crate) fn runtime_u32(&self, proto: Option<core::RuntimeUInt32>) -> Option<u32> {
        verdicts!(self, proto? => core::RuntimeUInt32 {
            supported { default_value }
            inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
        });
        Some(default_value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Context;

    #[test]
    fn a_share_is_at_most_the_whole() {
        let share = |numerator, denominator: DenominatorType| {
            let proto = pb::FractionalPercent {
                numerator,
                denominator: denominator.into(),
            };
            Fraction::from_proto(&Context::new("test", "t").root(), proto).unwrap()
        };
        assert_eq!(share(10, DenominatorType::Hundred), Fraction(100_000));
        assert_eq!(share(1, DenominatorType::TenThousand), Fraction(100));
        assert_eq!(share(100_000, DenominatorType::Million), Fraction(100_000));
        assert_eq!(share(u32::MAX, DenominatorType::Hundred), Fraction::ALL);
    }
}
