//! `/listeners`: the addresses that are bound.
use serde::Serialize;

use super::answer::Answer;
use super::endpoint::{Param, ParamKind};
use super::json::{self, Address};
use super::query::Query;
use super::{AdminView, BoundListener};

pub(super) const PARAMS: &[Param] = &[Param {
    name: "format",
    help: "File format to use",
    kind: ParamKind::OneOf(&["text", "json"]),
}];

/// `envoy.admin.v3.Listeners`.
#[derive(Serialize)]
struct Listeners {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listener_statuses: Vec<ListenerStatus>,
}

#[derive(Serialize)]
struct ListenerStatus {
    name: String,
    local_address: Address,
}

/// `/listeners`.
pub(super) fn answer(view: &dyn AdminView, query: &Query) -> Answer {
    let bound = view.listeners();
    if query.value("format") != Some("json") {
        let lines = bound
            .iter()
            .map(|BoundListener { name, address }| format!("{name}::{address}\n"));
        return Answer::text(lines.collect::<String>());
    }
    let statuses = bound
        .into_iter()
        .map(|BoundListener { name, address }| ListenerStatus {
            name,
            local_address: address.into(),
        });
    match json::pretty(&Listeners {
        listener_statuses: statuses.collect(),
    }) {
        Ok(text) => Answer::json(text),
        Err(error) => Answer::internal(error.to_string()),
    }
}
