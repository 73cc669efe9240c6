//! Which stats there are, and the bounds of histograms: both chosen by a stat's whole name when it is registered.
//!
//! Source: stats.proto `StatsMatcher` and `HistogramBucketSettings`; a stat that is left out costs nothing to count.
use std::sync::{Arc, OnceLock};

use outrigger_model::bootstrap::{HistogramBuckets, StatsInclusion};
use outrigger_model::matcher::{Pattern, StringMatcher};
use regex::Regex;

use super::histogram::PROMETHEUS_BOUNDS;

/// A pattern of a matcher that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("stats matcher: {0}; correct the regex in stats_config")]
pub(crate) struct NameRuleError(#[from] Box<regex::Error>);

/// What names decide.
#[derive(Debug, Default)]
pub(crate) struct NameRules {
    inclusion: Inclusion,
    buckets: Vec<(Test, Arc<[f64]>)>,
}

#[derive(Debug, Default)]
enum Inclusion {
    #[default]
    All,
    Only(Vec<Test>),
    AllBut(Vec<Test>),
}

/// Compares one name.
#[derive(Debug)]
struct Test {
    pattern: Pattern,
    /// Of [`Pattern::Regex`].
    regex: Option<Regex>,
    ignore_case: bool,
}

impl NameRules {
    /// The rules of a bootstrap.
    ///
    /// # Errors
    /// A regex does not compile; the model refuses such before.
    pub(crate) fn new(
        inclusion: &StatsInclusion,
        buckets: &[HistogramBuckets],
    ) -> Result<NameRules, NameRuleError> {
        let tests = |matchers: &[StringMatcher]| -> Result<Vec<Test>, NameRuleError> {
            matchers.iter().map(Test::new).collect()
        };
        let inclusion = match inclusion {
            StatsInclusion::All => Inclusion::All,
            StatsInclusion::Only(matchers) => Inclusion::Only(tests(matchers)?),
            StatsInclusion::AllBut(matchers) => Inclusion::AllBut(tests(matchers)?),
        };
        let buckets = buckets
            .iter()
            .map(|one| Ok((Test::new(&one.matcher)?, one.bounds.as_slice().into())));
        Ok(NameRules {
            inclusion,
            buckets: buckets.collect::<Result<_, NameRuleError>>()?,
        })
    }

    /// Whether a stat of this name exists.
    pub(super) fn includes(&self, name: &str) -> bool {
        match &self.inclusion {
            Inclusion::All => true,
            Inclusion::Only(tests) => tests.iter().any(|test| test.matches(name)),
            Inclusion::AllBut(tests) => !tests.iter().any(|test| test.matches(name)),
        }
    }

    /// The bounds of the histogram of this name: the first rule that matches, else Envoy's.
    pub(super) fn bounds(&self, name: &str) -> Arc<[f64]> {
        let configured = self.buckets.iter().find(|(test, _)| test.matches(name));
        configured.map_or_else(default_bounds, |(_, bounds)| Arc::clone(bounds))
    }
}

/// One allocation for all histograms.
fn default_bounds() -> Arc<[f64]> {
    static BOUNDS: OnceLock<Arc<[f64]>> = OnceLock::new();
    Arc::clone(BOUNDS.get_or_init(|| PROMETHEUS_BOUNDS.as_slice().into()))
}

impl Test {
    fn new(config: &StringMatcher) -> Result<Test, NameRuleError> {
        let StringMatcher { pattern, ignore_case } = config;
        let regex = match pattern {
            // The whole name, as RE2's FullMatch in Envoy.
            Pattern::Regex(text) => Some(Regex::new(&format!(r"\A(?:{text})\z")).map_err(Box::new)?),
            _ => None,
        };
        Ok(Test {
            pattern: pattern.clone(),
            regex,
            ignore_case: *ignore_case,
        })
    }

    fn matches(&self, name: &str) -> bool {
        let same = |left: &str, right: &str| {
            if self.ignore_case {
                left.eq_ignore_ascii_case(right)
            } else {
                left == right
            }
        };
        match &self.pattern {
            Pattern::Exact(text) => same(name, text),
            Pattern::Prefix(text) => name.get(..text.len()).is_some_and(|head| same(head, text)),
            Pattern::Suffix(text) => {
                let tail = name
                    .len()
                    .checked_sub(text.len())
                    .and_then(|from| name.get(from..));
                tail.is_some_and(|tail| same(tail, text))
            }
            Pattern::Contains(text) if self.ignore_case => {
                name.to_ascii_lowercase().contains(&text.to_ascii_lowercase())
            }
            Pattern::Contains(text) => name.contains(text.as_str()),
            Pattern::Regex(_) => self.regex.as_ref().is_some_and(|regex| regex.is_match(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(pattern: Pattern, ignore_case: bool) -> StringMatcher {
        StringMatcher { pattern, ignore_case }
    }

    #[track_caller]
    fn check(pattern: Pattern, ignore_case: bool, name: &str, expected: bool) {
        let matchers = vec![matcher(pattern, ignore_case)];
        let only = NameRules::new(&StatsInclusion::Only(matchers.clone()), &[]).unwrap();
        let all_but = NameRules::new(&StatsInclusion::AllBut(matchers), &[]).unwrap();
        assert_eq!(
            (only.includes(name), all_but.includes(name)),
            (expected, !expected),
            "{name}"
        );
    }

    #[test]
    fn patterns_see_the_whole_name() {
        check(Pattern::Prefix("server".into()), false, "server.live", true);
        check(
            Pattern::Prefix("server.live.x".into()),
            false,
            "server.live",
            false,
        );
        check(
            Pattern::Suffix("rbac.denied".into()),
            false,
            "http.x.rbac.denied",
            true,
        );
        check(Pattern::Suffix("rbac.denied".into()), false, "denied", false);
        check(Pattern::Exact("a".into()), false, "A", false);
        check(Pattern::Exact("a".into()), true, "A", true);
        check(Pattern::Contains("Up".into()), true, "cluster.x.upstream", true);
        let route = Pattern::Regex(r"vhost\..*\.route\..*".into());
        check(route.clone(), false, "vhost.a.route.b.upstream_rq", true);
        check(route, false, "x.vhost.a.route.b", false);
        check(Pattern::Prefix("é".into()), false, "e", false);
    }

    #[test]
    fn the_first_rule_gives_the_bounds() {
        let buckets = [("istiocustom", vec![1.0, 5.0]), ("istio", vec![7.0])].map(|(prefix, bounds)| {
            let matcher = matcher(Pattern::Prefix(prefix.into()), false);
            HistogramBuckets { matcher, bounds }
        });
        let rules = NameRules::new(&StatsInclusion::All, &buckets).unwrap();
        assert_eq!(*rules.bounds("istiocustom.x"), [1.0, 5.0]);
        assert_eq!(*rules.bounds("istio.x"), [7.0]);
        assert_eq!(*rules.bounds("cluster.x"), PROMETHEUS_BOUNDS);
    }
}
