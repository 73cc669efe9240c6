//! `/init_dump`: what listeners wait for.
//!
//! Source: envoy/admin/v3/init_dump.proto; Envoy `InitDumpHandler`; names as Envoy 1.40 calls its init targets.
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Serialize;

use super::answer::Answer;
use super::endpoint::{Param, ParamKind};
use super::query::Query;
use super::{AdminView, UnreadyListener, json};

pub(super) const PARAMS: &[Param] = &[Param {
    name: "mask",
    help: "The desired component to dump unready targets. The mask is parsed as a Protobuf::FieldMask. For example, get the unready \
           targets of all listeners with /init_dump?mask=listener`",
    kind: ParamKind::Text,
}];

/// `envoy.admin.v3.UnreadyTargetsDumps`.
#[derive(Serialize)]
struct Dumps {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unready_targets_dumps: Vec<Dump>,
}

#[derive(Serialize)]
struct Dump {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target_names: Vec<String>,
}

/// `/init_dump`. Listeners are the only component there is; any other mask gives nothing, as in Envoy.
pub(super) fn answer(view: &dyn AdminView, query: &Query) -> Answer {
    let unready = match query.text("mask") {
        None | Some("listener") => view.unready(),
        Some(_) => Vec::new(),
    };
    let dumps = Dumps {
        unready_targets_dumps: unready.into_iter().map(Dump::from).collect(),
    };
    match json::pretty(&dumps) {
        Ok(text) => Answer::json(text),
        Err(error) => Answer::internal(error.to_string()),
    }
}

/// Envoy puts the listener's hash after its name.
pub(super) fn number(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl From<UnreadyListener> for Dump {
    fn from(listener: UnreadyListener) -> Self {
        let UnreadyListener {
            name,
            routes,
            secrets,
            filters,
        } = listener;
        let number = number(&name);
        let routes = routes
            .into_iter()
            .map(|name| format!("shared target RdsRouteConfigSubscription RDS init {name}"));
        let secrets = secrets
            .into_iter()
            .map(|name| format!("shared target SdsApi {name}"));
        let filters = filters
            .into_iter()
            .map(|name| format!("shared target FilterConfigSubscription init {name}"));
        Self {
            name: format!("init manager Listener-local-init-manager {name} {number}"),
            target_names: routes.chain(secrets).chain(filters).collect(),
        }
    }
}
