//! Loggers by Envoy's names, and changing their levels while the process runs.
//!
//! Knows levels and the modules behind each name; applying them to the log is the business of whoever made the [`LogControl`].
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is logged. Source: Envoy docs, `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator may want to know.
    Info,
    /// What an operator should look at.
    Warning,
    /// What does not work.
    Error,
    /// What ends the process; nothing in this program logs at this level, such messages go to stderr directly.
    Critical,
    /// Nothing.
    Off,
}

impl Level {
    /// In rising order, as `/logging` lists them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Off,
    ];

    /// Envoy's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    /// By name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// A name that `/logging` takes.
#[derive(Debug)]
pub(crate) struct Logger {
    /// Envoy's.
    pub(crate) name: &'static str,
    /// The modules that log under it. Empty: everything that no other logger names.
    pub(crate) targets: &'static [&'static str],
}

/// Sorted by name. A module that is inside another's wins for what it logs. A filter that gets a logger in Envoy gets its line here
/// with its code: a level for something that cannot log would be a lie.
pub(crate) const LOGGERS: &[Logger] = &[
    Logger {
        name: "admin",
        targets: &["outrigger::admin"],
    },
    Logger {
        name: "config",
        targets: &["outrigger::config", "outrigger_model", "xds_client"],
    },
    Logger {
        name: "conn_handler",
        targets: &["outrigger::listener"],
    },
    Logger {
        name: "connection",
        targets: &[
            "outrigger::listener::connection",
            "outrigger::net",
            "outrigger::tls",
        ],
    },
    Logger {
        name: "file",
        targets: &["outrigger::telemetry::access_log"],
    },
    Logger {
        name: "filter",
        targets: &["outrigger::http::filter", "outrigger::network_filter"],
    },
    Logger {
        name: "grpc",
        targets: &["tonic", "tower"],
    },
    Logger {
        name: "http",
        targets: &["outrigger::codec", "outrigger::http"],
    },
    Logger {
        name: "http2",
        targets: &["h2", "outrigger::codec::h2"],
    },
    Logger {
        name: "main",
        targets: &["outrigger::cli", "outrigger::server"],
    },
    Logger {
        name: "misc",
        targets: &[],
    },
    Logger {
        name: "pool",
        targets: &["outrigger::upstream::pool"],
    },
    Logger {
        name: "router",
        targets: &["outrigger::http::router"],
    },
    Logger {
        name: "secret",
        targets: &["outrigger::config::secrets"],
    },
    Logger {
        name: "stats",
        targets: &["outrigger::stats"],
    },
    Logger {
        name: "upstream",
        targets: &["outrigger::upstream"],
    },
];

/// The level of each logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Levels([Level; LOGGERS.len()]);

impl Levels {
    /// One level for all.
    pub(crate) fn all(level: Level) -> Self {
        Self([level; LOGGERS.len()])
    }

    /// With one logger changed.
    ///
    /// # Errors
    /// There is no such logger.
    pub(crate) fn with(mut self, name: &str, level: Level) -> Result<Self, UnknownLogger> {
        let index = LOGGERS.iter().position(|logger| logger.name == name);
        let place = index.and_then(|index| self.0.get_mut(index));
        *place.ok_or_else(|| UnknownLogger(name.to_owned()))? = level;
        Ok(self)
    }

    /// Loggers and their levels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Logger, Level)> {
        LOGGERS.iter().zip(self.0)
    }
}

/// There is no logger of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown logger {0:?}")]
pub(crate) struct UnknownLogger(pub(crate) String);

/// The levels now, and the way to change them. Clones share them.
#[derive(Clone)]
pub(crate) struct LogControl(Arc<Inner>);

struct Inner {
    levels: Mutex<Levels>,
    apply: Box<dyn Fn(&Levels) + Send + Sync>,
}

impl LogControl {
    /// Starts with `levels`, which are in force already; `apply` puts others in force.
    pub(crate) fn new(levels: Levels, apply: impl Fn(&Levels) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            levels: Mutex::new(levels),
            apply: Box::new(apply),
        }))
    }

    /// The levels now.
    pub(crate) fn levels(&self) -> Levels {
        self.lock().clone()
    }

    /// Puts `levels` in force.
    pub(crate) fn set(&self, levels: Levels) {
        let mut current = self.lock();
        (self.0.apply)(&levels);
        *current = levels;
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.0.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogControl").field(&*self.lock()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loggers_are_sorted_and_no_module_has_two() {
        assert!(LOGGERS.is_sorted_by_key(|logger| logger.name));
        let mut targets: Vec<_> = LOGGERS.iter().flat_map(|logger| logger.targets).collect();
        let count = targets.len();
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), count);
    }

    #[test]
    fn an_unknown_logger_is_named() {
        let error = Levels::all(Level::Info)
            .with("htttp", Level::Debug)
            .expect_err("no such logger");
        assert_eq!(error.to_string(), "unknown logger \"htttp\"");
    }
}
