//! Endpoints about the process itself: `/ready`, `/quitquitquit`, `/drain_listeners`, `/hot_restart_version`.
use http::StatusCode;

use super::answer::Answer;
use super::endpoint::{Param, ParamKind};
use super::query::Query;
use super::{AdminView, DrainListeners, Lifecycle};

pub(super) const DRAIN_PARAMS: &[Param] = &[
    Param {
        name: "graceful",
        help: "When draining listeners, enter a graceful drain period prior to closing listeners. Its length is --drain-time-s",
        kind: ParamKind::Flag,
    },
    Param {
        name: "skip_exit",
        help: "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect then",
        kind: ParamKind::Flag,
    },
    Param {
        name: "inboundonly",
        help: "Drains all inbound listeners: those whose traffic_direction is INBOUND",
        kind: ParamKind::Flag,
    },
];

/// There is no hot restart here; Envoy says the same with `--disable-hot-restart`.
pub(super) const HOT_RESTART_VERSION: &str = "disabled";

/// `/ready`.
pub(super) fn ready(view: &dyn AdminView, _: &Query) -> Answer {
    let state = view.lifecycle();
    let status = if state == Lifecycle::Live {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Answer::text(format!("{}\n", state.name())).with_status(status)
}

/// `POST /quitquitquit`.
pub(super) fn quit(view: &dyn AdminView, _: &Query) -> Answer {
    view.quit();
    Answer::text("OK\n")
}

/// `POST /drain_listeners`.
pub(super) fn drain_listeners(view: &dyn AdminView, query: &Query) -> Answer {
    view.drain_listeners(DrainListeners {
        graceful: query.is_set("graceful"),
        inbound_only: query.is_set("inboundonly"),
        skip_exit: query.is_set("skip_exit"),
    });
    Answer::text("OK\n")
}

/// `/hot_restart_version`.
pub(super) fn hot_restart_version(_: &dyn AdminView, _: &Query) -> Answer {
    Answer::text(format!("{HOT_RESTART_VERSION}\n"))
}
