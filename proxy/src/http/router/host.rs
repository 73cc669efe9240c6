//! Which host an attempt goes to: what of the request, of its session and of the attempts before counts.
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Exchange;
use crate::codec::RequestHead;
use crate::http::filter::SessionHost;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Host;
use crate::upstream::lb::{Avoided, First, Wish};

impl Exchange<'_> {
    /// An attempt goes to `host`.
    pub(super) fn note_tried(&mut self, host: &Host) {
        self.tried.push(host.address);
        self.tried_priorities.push(host.priority);
    }

    /// The host of the next attempt; `None`: nobody may have it.
    pub(super) fn pick(&mut self) -> Option<Arc<Host>> {
        let first = self.first();
        self.exclude_priorities();
        let avoid = self.retry.avoid_previous_hosts();
        let avoided = Avoided {
            tried: if avoid { &self.tried } else { &[] },
            attempts: self.retry.host_selection_attempts(),
        };
        let wish = Wish {
            dialled: self.dialled(),
            hash: self.hashed.hash,
            avoided,
            labels: self.labels,
            excluded_priorities: &self.excluded_priorities,
            first,
        };
        self.cluster.choose(&wish, &mut self.stream.random.borrow_mut())
    }

    /// Where ORIGINAL_DST clusters connect to. Source: Envoy `OriginalDstCluster::LoadBalancer::chooseHost`.
    fn dialled(&self) -> Option<SocketAddr> {
        let header = self.cluster.config.original_dst_header.as_ref();
        if let Some(named) = header.and_then(|header| self.stream.request().header(header)) {
            let named = std::str::from_utf8(named).ok();
            if let Some(address) = named.and_then(|named| named.parse().ok()) {
                return Some(address);
            }
            self.cluster.stats.original_dst_invalid();
        }
        self.stream.downstream.info.original_dst()
    }

    /// After so many attempts their priorities get no more; when no other is left, it begins anew.
    /// Source: Envoy `PreviousPrioritiesRetryPriority::determinePriorityLoad`.
    fn exclude_priorities(&mut self) {
        let Some(every) = self.retry.previous_priorities() else {
            return;
        };
        let attempts = self.tried_priorities.len();
        if attempts < every || !attempts.is_multiple_of(every) {
            return;
        }
        self.excluded_priorities.extend_from_slice(&self.tried_priorities);
        if !self.cluster.hosts().balance.has_others(&self.excluded_priorities) {
            self.excluded_priorities.clear();
            self.tried_priorities.clear();
        }
    }

    /// A host that goes before all others. A session has its host once: a retry may go to any.
    fn first(&mut self) -> Option<First> {
        let hosts = |named: SocketAddr| self.cluster.hosts().find(named).is_some();
        match self.session_host {
            Some(SessionHost {
                address, is_strict, ..
            }) if self.attempts == 1 => Some(First::Session { address, is_strict }),
            _ => self.named.by_ref().find(|named| hosts(*named)).map(First::Any),
        }
    }
}

/// The hosts that a request names in headers that its cluster looks at. Source: Envoy `OverrideHostLoadBalancer`.
pub(super) fn named_hosts(cluster: &Cluster, head: &RequestHead) -> SmallVec<[SocketAddr; 1]> {
    let headers = cluster.config.override_host_headers.iter();
    let values = headers.filter_map(|header| std::str::from_utf8(head.header(header)?).ok());
    let addresses = values.flat_map(|value| value.split(','));
    addresses
        .filter_map(|address| address.trim_ascii().parse().ok())
        .collect()
}
