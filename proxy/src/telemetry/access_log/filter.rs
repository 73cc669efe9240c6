//! Which entries a log writes. Source: accesslog.proto; Envoy `AccessLogFilter`.
use outrigger_model::access_log::{AccessLogFilter, Comparison, Operator};

use super::AccessLogError;
use crate::telemetry::response_flag::{ResponseFlag, ResponseFlags};
use crate::telemetry::stream_info::StreamInfo;

/// A filter that can be judged.
#[derive(Debug)]
pub(crate) enum Filter {
    All,
    AnyFlag,
    Flags(ResponseFlags),
    StatusCode(Comparison),
    Duration(Comparison),
    And(Box<[Filter]>),
    Or(Box<[Filter]>),
}

impl Filter {
    /// `None`: some part of it is judged by nothing yet.
    pub(crate) fn new(filter: &AccessLogFilter) -> Result<Option<Self>, AccessLogError> {
        Ok(Some(match filter {
            AccessLogFilter::ResponseFlag(names) if names.is_empty() => Self::AnyFlag,
            AccessLogFilter::ResponseFlag(names) => {
                let flag = |name: &String| {
                    ResponseFlag::from_short(name).ok_or_else(|| AccessLogError::UnknownFlag(name.clone()))
                };
                Self::Flags(names.iter().map(flag).collect::<Result<_, _>>()?)
            }
            AccessLogFilter::StatusCode(comparison) => Self::StatusCode(*comparison),
            AccessLogFilter::Duration(comparison) => Self::Duration(*comparison),
            AccessLogFilter::And(filters) => match all(filters)? {
                Some(filters) => Self::And(filters),
                None => return Ok(None),
            },
            AccessLogFilter::Or(filters) => match all(filters)? {
                Some(filters) => Self::Or(filters),
                None => return Ok(None),
            },
            AccessLogFilter::Awaited(_) => return Ok(None),
        }))
    }

    /// Whether the entry of a finished stream is written.
    pub(crate) fn passes(&self, info: &StreamInfo) -> bool {
        match self {
            Self::All => true,
            Self::AnyFlag => !info.flags.is_empty(),
            Self::Flags(wanted) => wanted.intersects(&info.flags),
            Self::StatusCode(comparison) => holds(
                comparison,
                info.response_code.map_or(0, |code| code.as_u16().into()),
            ),
            Self::Duration(comparison) => info
                .duration()
                .is_some_and(|duration| holds(comparison, duration.as_millis())),
            Self::And(filters) => filters.iter().all(|filter| filter.passes(info)),
            Self::Or(filters) => filters.iter().any(|filter| filter.passes(info)),
        }
    }
}

fn all(filters: &[AccessLogFilter]) -> Result<Option<Box<[Filter]>>, AccessLogError> {
    filters.iter().map(Filter::new).collect()
}

fn holds(comparison: &Comparison, value: u128) -> bool {
    let wanted = u128::from(comparison.value);
    match comparison.operator {
        Operator::Equal => value == wanted,
        Operator::AtLeast => value >= wanted,
        Operator::AtMost => value <= wanted,
        Operator::NotEqual => value != wanted,
    }
}
