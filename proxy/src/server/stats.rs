//! `server.*`: what the process is and uses. Source: Envoy docs, "Statistics", server; contract §2.5 for what Istio reads.
use std::time::Duration;

use crate::admin::Lifecycle;
use crate::stats::{Gauge, Registry};

const KIBIBYTE: u64 = 1024;
/// What Envoy shows when no certificate is loaded.
const NO_CERTIFICATE: u64 = u32::MAX as u64;

/// Gauges that Istio's readiness probe and dashboards read. `server.total_connections` is counted by the listeners,
/// `server.initialization_time_ms` by the control.
pub(super) struct ServerStats {
    state: Gauge,
    live: Gauge,
    uptime: Gauge,
    memory_allocated: Gauge,
    memory_heap_size: Gauge,
    memory_physical_size: Gauge,
    days_until_first_cert_expiring: Gauge,
}

impl ServerStats {
    /// Registers them and sets those that never change. There is no hot restart, so no parent and epoch 0.
    pub(super) fn new(registry: &Registry, concurrency: usize) -> Self {
        let gauge = |name: &str| registry.gauge(format!("server.{name}"));
        gauge("concurrency").set(concurrency as u64);
        gauge("hot_restart_epoch").set(0);
        gauge("parent_connections").set(0);
        gauge("total_connections").add(0);
        registry.gauge("listener_manager.workers_started").set(1);
        Self {
            state: gauge("state"),
            live: gauge("live"),
            uptime: gauge("uptime"),
            memory_allocated: gauge("memory_allocated"),
            memory_heap_size: gauge("memory_heap_size"),
            memory_physical_size: gauge("memory_physical_size"),
            days_until_first_cert_expiring: gauge("days_until_first_cert_expiring"),
        }
    }

    /// Sets what changes. `first_expiry`: how long the certificate that ends first is still valid; `None`: there is none.
    pub(super) fn refresh(&self, lifecycle: Lifecycle, uptime: Duration, first_expiry: Option<Duration>) {
        self.state.set(u64::from(lifecycle.number()));
        self.live.set(u64::from(lifecycle == Lifecycle::Live));
        self.uptime.set(uptime.as_secs());
        let days = first_expiry.map_or(NO_CERTIFICATE, |left| left.as_secs() / (24 * 60 * 60));
        self.days_until_first_cert_expiring.set(days);
        if let Some(memory) = Memory::now() {
            self.memory_physical_size.set(memory.resident);
            // The allocator does not say what it holds: its part of the resident memory is the nearest.
            self.memory_allocated.set(memory.anonymous);
            self.memory_heap_size.set(memory.anonymous);
        }
    }
}

/// Bytes of this process.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    /// In memory now.
    resident: u64,
    /// Of these, what no file backs: heap and stacks.
    anonymous: u64,
}

impl Memory {
    /// `None` where /proc is not mounted.
    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Source: proc_pid_status(5).
    fn parse(status: &str) -> Option<Self> {
        let kibibytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            resident: kibibytes("VmRSS:")?.saturating_mul(KIBIBYTE),
            anonymous: kibibytes("RssAnon:")?.saturating_mul(KIBIBYTE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes_and_a_foreign_text_is_nothing() {
        let status = "Name:\toutrigger\nVmRSS:\t   18600 kB\nRssAnon:\t    9000 kB\n";
        let expected = Memory {
            resident: 18600 * 1024,
            anonymous: 9000 * 1024,
        };
        assert_eq!(Memory::parse(status), Some(expected));
        assert_eq!(Memory::parse("VmRSS: many kB"), None);
        assert!(Memory::now().is_some_and(|memory| memory.resident > memory.anonymous));
    }
}
