//! The table of endpoints, and choosing one. `/help` and the home page are made from the same table.
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use super::answer::Answer;
use super::query::Query;
use super::{
    AdminView, clusters, config_dump, config_state, help, init_dump, listeners, logging, process,
    server_info, stats,
};

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) help: &'static str,
    pub(super) params: &'static [Param],
    /// It changes something: only POST may.
    pub(super) mutates: bool,
    run: Run,
}

/// A query parameter, for `/help`.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: ParamKind,
}

/// What a parameter takes.
pub(super) enum ParamKind {
    Flag,
    Text,
    OneOf(&'static [&'static str]),
}

/// An answer still to be made, by any thread. One that is large may send parts of it before the rest.
pub(super) type Later = Box<dyn FnOnce(&Pieces) -> Answer + Send>;

/// Takes JSON in parts, and waits until the client has taken those before.
pub(super) struct Pieces(pub(super) mpsc::Sender<Bytes>);

impl Pieces {
    /// False: the client is gone. Blocks.
    pub(super) fn send(&self, piece: String) -> bool {
        self.0.blocking_send(piece.into()).is_ok()
    }
}

enum Run {
    /// Cheap: answered at once.
    Now(fn(&dyn AdminView, &Query) -> Answer),
    /// Takes milliseconds or more: the control thread only gathers what to show.
    Aside(fn(&dyn AdminView, &Query) -> Result<Later, Answer>),
}

/// What became of a request.
pub(super) enum Outcome {
    Ready(Answer),
    Later(Later),
}

const fn endpoint(path: &'static str, help: &'static str, run: Run) -> Endpoint {
    Endpoint {
        path,
        help,
        params: &[],
        mutates: false,
        run,
    }
}

impl Endpoint {
    const fn taking(mut self, params: &'static [Param]) -> Self {
        self.params = params;
        self
    }

    const fn mutating(mut self) -> Self {
        self.mutates = true;
        self
    }
}

/// Every endpoint, sorted by path.
pub(super) static ENDPOINTS: &[Endpoint] = &[
    endpoint("/", "Admin home page", Run::Now(help::home)),
    endpoint("/clusters", "upstream cluster status", Run::Now(clusters::answer)).taking(clusters::PARAMS),
    endpoint(
        "/config/diff",
        "print what differs between two accepted versions of the configuration",
        Run::Aside(config_state::diff),
    )
    .taking(config_state::DIFF_PARAMS),
    endpoint(
        "/config/history",
        "print accepted versions of the configuration",
        Run::Now(config_state::history),
    )
    .taking(config_state::PARAMS),
    endpoint(
        "/config/names",
        "print the names that the control plane gave for DNS",
        Run::Now(config_state::names),
    ),
    endpoint(
        "/config/problems",
        "print refused configuration and fields without effect",
        Run::Aside(config_state::problems),
    )
    .taking(config_state::PARAMS),
    endpoint(
        "/config_dump",
        "dump current Envoy configs",
        Run::Aside(config_dump::answer),
    )
    .taking(config_dump::PARAMS),
    endpoint(
        "/drain_listeners",
        "drain listeners",
        Run::Now(process::drain_listeners),
    )
    .taking(process::DRAIN_PARAMS)
    .mutating(),
    endpoint(
        "/help",
        "print out list of admin commands",
        Run::Now(help::answer),
    ),
    endpoint(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        Run::Now(process::hot_restart_version),
    ),
    endpoint(
        "/init_dump",
        "dump current Envoy init manager information (experimental)",
        Run::Now(init_dump::answer),
    )
    .taking(init_dump::PARAMS),
    endpoint("/listeners", "print listener info", Run::Now(listeners::answer)).taking(listeners::PARAMS),
    endpoint(
        "/logging",
        "query/change logging levels",
        Run::Now(logging::answer),
    )
    .taking(logging::PARAMS)
    .mutating(),
    endpoint("/quitquitquit", "exit the server", Run::Now(process::quit)).mutating(),
    endpoint(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        Run::Now(process::ready),
    ),
    endpoint(
        "/server_info",
        "print server version/status information",
        Run::Aside(server_info::answer),
    ),
    endpoint("/stats", "print server stats", Run::Aside(stats::answer)).taking(stats::PARAMS),
    endpoint(
        "/stats/prometheus",
        "print server stats in prometheus format",
        Run::Aside(stats::prometheus),
    )
    .taking(stats::PROMETHEUS_PARAMS),
];

/// Answers a request for `path`, which has no query.
pub(super) fn route(view: &dyn AdminView, method: &Method, path: &str, query: &Query) -> Outcome {
    let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) else {
        let body = format!("invalid path. {}", help::text());
        return Outcome::Ready(Answer::text(body).with_status(StatusCode::NOT_FOUND));
    };
    if endpoint.mutates && method != Method::POST {
        tracing::warn!(path, %method, "admin request refused: only POST may change something");
        let body = format!("Method {method} not allowed, POST required.");
        return Outcome::Ready(Answer::text(body).with_status(StatusCode::METHOD_NOT_ALLOWED));
    }
    match endpoint.run {
        Run::Now(answer) => Outcome::Ready(answer(view, query)),
        Run::Aside(prepare) => match prepare(view, query) {
            Ok(later) => Outcome::Later(later),
            Err(answer) => Outcome::Ready(answer),
        },
    }
}
