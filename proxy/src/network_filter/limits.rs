//! Who may not come in: there are too many connections, or they come too fast.
//!
//! Asked once a connection, before anything is read of it. Threads share counts without a lock. Source: Envoy `ConnectionLimitFilter`,
//! `LocalRateLimitFilter` of network and listener; beside Envoy 1.40 in tests/it/alone/connection_limits.rs.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use outrigger_model::http_filter::local_ratelimit::TokenBucket;
use outrigger_model::network_filter::limits::{ConnectionLimit, ConnectionRate};

use crate::http::filter::local_ratelimit::bucket::Bucket;
use crate::stats::{Counter, Gauge, Registry};

/// One limit of a filter chain, at its place.
#[derive(Debug)]
pub(crate) enum Gate {
    /// Connections at once.
    Count(Count),
    /// Connections in a time.
    Rate(Rate),
}

/// What a gate says.
#[derive(Debug)]
pub(crate) enum Entrance {
    /// It may come in; keep what is there as long as the connection.
    Open(Option<Counted>),
    /// It is one too many, and is closed after this time.
    TooMany(Option<(Counted, Duration)>),
    /// They come too fast.
    TooFast,
}

impl Gate {
    /// One more connection.
    pub(crate) fn enter(&self) -> Entrance {
        match self {
            Self::Count(count) => count.enter(),
            Self::Rate(rate) if rate.admits() => Entrance::Open(None),
            Self::Rate(_) => Entrance::TooFast,
        }
    }
}

/// Connections at once.
#[derive(Debug)]
pub(crate) struct Count {
    most: u64,
    delay: Option<Duration>,
    limits: bool,
    active: Arc<AtomicU64>,
    active_connections: Gauge,
    limited_connections: Counter,
}

/// A connection that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    active: Arc<AtomicU64>,
    gauge: Gauge,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

impl Count {
    /// Builds it, with its stats.
    pub(crate) fn new(config: &ConnectionLimit, registry: &Registry) -> Self {
        let prefix = format!("connection_limit.{}", config.stat_prefix);
        Self {
            most: config.most_connections,
            delay: config.closing_delay,
            limits: config.limits_connections,
            active: Arc::default(),
            active_connections: registry.gauge(format!("{prefix}.active_connections")),
            limited_connections: registry.counter(format!("{prefix}.limited_connections")),
        }
    }

    /// One that is refused counts too while it waits for its end, as in Envoy.
    fn enter(&self) -> Entrance {
        if !self.limits {
            return Entrance::Open(None);
        }
        let before = self.active.fetch_add(1, Ordering::Relaxed);
        self.active_connections.inc();
        let counted = Counted {
            active: self.active.clone(),
            gauge: self.active_connections.clone(),
        };
        if before < self.most {
            return Entrance::Open(Some(counted));
        }
        self.limited_connections.inc();
        Entrance::TooMany(self.delay.map(|delay| (counted, delay)))
    }
}

/// Connections in a time.
#[derive(Debug)]
pub(crate) struct Rate {
    bucket: Arc<Bucket>,
    limits: bool,
    rate_limited: Counter,
}

impl Rate {
    /// Of a filter chain.
    pub(crate) fn of_chain(config: &ConnectionRate, registry: &Registry) -> Self {
        Self::new(config, registry, "local_rate_limit")
    }

    /// Of a listener.
    pub(crate) fn of_listener(config: &ConnectionRate, registry: &Registry) -> Self {
        Self::new(config, registry, "listener_local_ratelimit")
    }

    fn new(config: &ConnectionRate, registry: &Registry, family: &str) -> Self {
        let prefix = &config.stat_prefix;
        Self {
            bucket: match config.share_name.as_str() {
                "" => Arc::new(Bucket::new(&config.connection_tokens)),
                name => shared(name, &config.connection_tokens),
            },
            limits: config.limits_rate,
            rate_limited: registry.counter(format!("{family}.{prefix}.rate_limited")),
        }
    }

    /// One more connection may come in; one that may not is counted.
    pub(crate) fn admits(&self) -> bool {
        let admits = !self.limits || self.bucket.take();
        if !admits {
            self.rate_limited.inc();
        }
        admits
    }
}

/// A bucket that filters have together, and what it was made of.
type Shared = (String, TokenBucket, Weak<Bucket>);

/// The bucket of all filters with this name and such a bucket. Control thread.
fn shared(name: &str, config: &TokenBucket) -> Arc<Bucket> {
    static ALL: Mutex<Vec<Shared>> = Mutex::new(Vec::new());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, _, bucket)| bucket.strong_count() > 0);
    let mut same = all.iter().filter(|(other, of, _)| other == name && of == config);
    if let Some(bucket) = same.find_map(|(_, _, bucket)| bucket.upgrade()) {
        return bucket;
    }
    let bucket = Arc::new(Bucket::new(config));
    all.push((name.to_owned(), config.clone(), Arc::downgrade(&bucket)));
    bucket
}
