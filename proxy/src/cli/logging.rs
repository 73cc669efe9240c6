//! What the process says about itself: to stderr, with time, level and target.
use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use crate::admin::logger::{Level, Levels, LogControl};

/// Starts logging with `levels`; the result changes them. A process that logs already (a test) keeps its way.
pub(super) fn start(levels: Levels) -> LogControl {
    let (filter, handle) = reload::Layer::new(targets(&levels));
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(true);
    if tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_err()
    {
        return LogControl::new(levels, |_| {});
    }
    LogControl::new(levels, move |levels| {
        // Fails only when the subscriber is gone, and with it the process.
        let _ = handle.reload(targets(levels));
    })
}

/// The filter for these levels.
fn targets(levels: &Levels) -> Targets {
    levels
        .iter()
        .fold(Targets::new(), |filter, (logger, level)| match logger.targets {
            [] => filter.with_default(filter_of(level)),
            targets => filter.with_targets(targets.iter().map(|target| (*target, filter_of(level)))),
        })
}

fn filter_of(level: Level) -> LevelFilter {
    match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
        Level::Critical | Level::Off => LevelFilter::OFF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(levels: &Levels, target: &str, level: tracing::Level, expected: bool) {
        assert_eq!(
            targets(levels).would_enable(target, &level),
            expected,
            "{target} {level}"
        );
    }

    #[test]
    fn the_innermost_module_decides_and_misc_is_the_rest() {
        let levels = Levels::all(Level::Info)
            .with("router", Level::Debug)
            .expect("a logger");
        let levels = levels.with("misc", Level::Error).expect("a logger");
        check(
            &levels,
            "outrigger::http::router::retry",
            tracing::Level::DEBUG,
            true,
        );
        check(&levels, "outrigger::http::stream", tracing::Level::DEBUG, false);
        check(&levels, "outrigger::http::stream", tracing::Level::INFO, true);
        check(&levels, "hyper::proto", tracing::Level::WARN, false);
        check(
            &Levels::all(Level::Off),
            "outrigger::server",
            tracing::Level::ERROR,
            false,
        );
    }
}
