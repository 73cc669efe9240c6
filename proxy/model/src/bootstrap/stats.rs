//! Protobuf to what a bootstrap says of stats. Source: envoy/config/metrics/v3/stats.proto.
use envoy_types::pb::envoy::config::metrics::v3::{
    self as pb, stats_matcher::StatsMatcher as Specifier, tag_specifier::TagValue,
};
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;

use super::{HistogramBuckets, StatsInclusion, StatsTag, StatsTagValue};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::StringMatcher;

/// `stats_config`.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) tags: Vec<StatsTag>,
    pub(super) inclusion: StatsInclusion,
    pub(super) buckets: Vec<HistogramBuckets>,
}

impl Stats {
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::StatsConfig>) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        verdicts!(at, proto => pb::StatsConfig {
            supported { stats_tags, stats_matcher, histogram_bucket_settings }
            partly { use_all_default_tags: "false; true is listed as without effect" }
            unsupported { allow_default_tag_overrides: "telemetry" }
        });
        if use_all_default_tags.is_some_and(|all| all.value) {
            at.field("use_all_default_tags")
                .problem("true has no effect here");
        }
        let buckets = histogram_bucket_settings.into_iter().enumerate();
        let at_buckets = at.field("histogram_bucket_settings");
        Ok(Self {
            tags: tags(&at.field("stats_tags"), stats_tags),
            inclusion: StatsInclusion::from_proto(&at.field("stats_matcher"), stats_matcher)?,
            buckets: buckets
                .map(|(index, proto)| HistogramBuckets::from_proto(&at_buckets.index(index), proto))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn tags(at: &FieldPath<'_>, protos: Vec<pb::TagSpecifier>) -> Vec<StatsTag> {
    let mut tags = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => pb::TagSpecifier { supported { tag_name, tag_value } });
        choices!(TagValue { supported { Regex, FixedValue } });
        let value = match tag_value {
            Some(TagValue::Regex(regex)) => StatsTagValue::Regex(regex),
            Some(TagValue::FixedValue(text)) => StatsTagValue::Fixed(text),
            None => {
                at.problem("names one of Envoy's default tags, which do not exist here");
                continue;
            }
        };
        tags.push(StatsTag {
            name: tag_name,
            value,
        });
    }
    tags
}

impl StatsInclusion {
    fn from_proto(at: &FieldPath<'_>, proto: Option<pb::StatsMatcher>) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::All);
        };
        verdicts!(at, proto => pb::StatsMatcher { supported { stats_matcher } });
        choices!(Specifier { supported { RejectAll, ExclusionList, InclusionList } });
        Ok(match at.required(stats_matcher)? {
            Specifier::RejectAll(true) => Self::Only(Vec::new()),
            Specifier::RejectAll(false) => Self::All,
            Specifier::ExclusionList(list) => Self::AllBut(patterns(&at.field("exclusion_list"), list)?),
            Specifier::InclusionList(list) => Self::Only(patterns(&at.field("inclusion_list"), list)?),
        })
    }
}

fn patterns(at: &FieldPath<'_>, proto: matcher::ListStringMatcher) -> Result<Vec<StringMatcher>, Rejection> {
    verdicts!(at, proto => matcher::ListStringMatcher { supported { patterns } });
    StringMatcher::list(at.field("patterns"), patterns)
}

impl HistogramBuckets {
    fn from_proto(at: &FieldPath<'_>, proto: pb::HistogramBucketSettings) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HistogramBucketSettings {
            supported { r#match, buckets }
            unsupported { bins: "telemetry" }
        });
        if buckets.iter().any(|bound| !bound.is_finite() || *bound <= 0.0) {
            return Err(at.field("buckets").reject("must be numbers above 0"));
        }
        let mut bounds = buckets;
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        Ok(Self {
            matcher: StringMatcher::from_proto(&at.field("match"), at.field("match").required(r#match)?)?,
            bounds,
        })
    }
}
