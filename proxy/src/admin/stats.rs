//! `/stats` and `/stats/prometheus`.
use super::AdminView;
use super::answer::Answer;
use super::endpoint::{Later, Param, ParamKind};
use super::query::Query;
use super::regex;
use crate::stats;

const USED_ONLY: Param = Param {
    name: "usedonly",
    help: "Only include stats that have been written by system since restart",
    kind: ParamKind::Flag,
};
const FILTER: Param = Param {
    name: "filter",
    help: "Regular expression for filtering stats",
    kind: ParamKind::Text,
};

pub(super) const PARAMS: &[Param] = &[
    USED_ONLY,
    FILTER,
    Param {
        name: "format",
        help: "Format to use",
        kind: ParamKind::OneOf(&["text", "json", "prometheus"]),
    },
];
pub(super) const PROMETHEUS_PARAMS: &[Param] = &[USED_ONLY, FILTER];

/// What Envoy can and these answers cannot; showing something else than was asked for would mislead.
const MISSING: &[(&str, &[&str])] = &[
    ("type", &["", "All"]),
    ("histogram_buckets", &[""]),
    ("invert_filter", &[]),
    ("text_readouts", &[]),
];

#[derive(Clone, Copy)]
enum Format {
    Text,
    Json,
    Prometheus,
}

/// `/stats`.
pub(super) fn answer(view: &dyn AdminView, query: &Query) -> Result<Later, Answer> {
    let format = match query.value("format").unwrap_or("text") {
        "text" | "" => Format::Text,
        "json" => Format::Json,
        "prometheus" => Format::Prometheus,
        _ => {
            return Err(Answer::bad_request(
                "usage: /stats?format=(json|prometheus|text)\n",
            ));
        }
    };
    render(view, query, format)
}

/// `/stats/prometheus`.
pub(super) fn prometheus(view: &dyn AdminView, query: &Query) -> Result<Later, Answer> {
    render(view, query, Format::Prometheus)
}

fn render(view: &dyn AdminView, query: &Query, format: Format) -> Result<Later, Answer> {
    if let Some((name, value)) = missing(query) {
        return Err(Answer::bad_request(format!(
            "{name}={value} has no implementation here; leave it out\n"
        )));
    }
    let filter = regex::parse(query.text("filter"))?;
    let used_only = query.is_set("usedonly");
    view.refresh_stats();
    let registry = view.registry();
    Ok(Box::new(move |_| match format {
        Format::Text => Answer::text(stats::text(&registry, filter.as_ref(), used_only)),
        Format::Json => Answer::json(stats::json(&registry, filter.as_ref(), used_only)),
        Format::Prometheus => Answer::text(stats::prometheus(&registry, filter.as_ref(), used_only)),
    }))
}

fn missing(query: &Query) -> Option<(&'static str, &str)> {
    let asked = MISSING
        .iter()
        .filter_map(|(name, harmless)| Some((*name, query.value(name)?, *harmless)));
    asked
        .filter(|(_, value, harmless)| !harmless.contains(value))
        .map(|(name, value, _)| (name, value))
        .next()
}
