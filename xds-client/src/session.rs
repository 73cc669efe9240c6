//! The protocol itself, as machines without I/O and without a clock.
//!
//! A machine is told of streams and responses and asked for requests; the subscriptions it owns may change at any
//! time. It knows names and [`Any`](crate::Any)s only.
//! Source: the xDS protocol document of Envoy; istiod's reading of it (pilot/pkg/xds/delta.go, pkg/xds/server.go).

pub mod delta;
mod intake;
mod machine;
mod names;
mod pacing;
pub mod sotw;
mod ttl;

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::google::protobuf::Duration as PbDuration;
use envoy_types::pb::google::rpc::Status;

use crate::{Counters, Handler, Rejection, Report, Subscriptions};

/// `INTERNAL` of gRPC: the code that Envoy puts into every NACK.
const GRPC_INTERNAL: i32 = 13;
/// Longest reason for one resource in a NACK, in bytes; what is longer is a generated text nobody reads to its end.
const MAX_REASON_BYTES: usize = 2048;
/// Longest message of a NACK, in bytes. Control planes limit what they receive (istiod: 4 MiB).
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// One protocol machine; what [`crate::Client`] drives, and what a simulation can drive instead.
///
/// A stream is used like this: [`stream_opened`](Session::stream_opened), then requests and responses in any
/// interleaving, then [`stream_closed`](Session::stream_closed). Requests go out in the order in which they are taken.
pub trait Session {
    /// What is sent.
    type Request;
    /// What is received.
    type Response;

    /// The wishes; changes show up in the next requests.
    fn subscriptions_mut(&mut self) -> &mut Subscriptions;

    /// Forgets what belonged to the stream before (nonces, what was asked) and says everything anew.
    fn stream_opened(&mut self);

    /// Drops answers that did not get out.
    fn stream_closed(&mut self);

    /// Whether [`next_request`](Session::next_request) is worth a call. It may still find nothing to say.
    fn wants_to_send(&self) -> bool;

    /// The next message: answers first, in order of the responses of a type, then changes of subscriptions, then reports. A second
    /// refusal in a row waits, and the type with it: up to a second, so that no loop comes of it.
    fn next_request(&mut self) -> Option<Self::Request>;

    /// Takes a response: the handler sees what was asked for, and exactly one answer is queued.
    fn on_response<H: Handler + ?Sized>(&mut self, response: Self::Response, handler: &mut H);

    /// Takes note of what the owner has from elsewhere than a control plane, such as a copy on disk of an earlier run: the control plane
    /// is told of it, and so says what of it is gone. Names that were shown here before are left as they are.
    fn hold(&mut self, type_url: &str, names: BTreeSet<String>);

    /// Whether something has to be said that only the first requests of a stream can say: the driver ends the stream and opens another.
    fn wants_new_stream(&self) -> bool;

    /// Says something to the control plane on this stream and on every later one; see [`Report`].
    fn report(&mut self, report: Report);

    /// Tells the time, counted from any moment that stays the same, and what it ends: resources whose time to live is
    /// over are removed, connected or not. To be called before each response and at [`next_deadline`](Session::next_deadline).
    fn advance<H: Handler + ?Sized>(&mut self, now: Duration, handler: &mut H);

    /// When [`advance`](Session::advance) has something to do next: the end of a resource's life, or the time of an answer that is
    /// held because the one before it was a refusal too.
    fn next_deadline(&mut self) -> Option<Duration>;

    /// Answers that wait to be taken; the driver stops reading when they become too many.
    fn waiting_answers(&self) -> usize;

    /// What was counted so far.
    fn counters_mut(&mut self) -> &mut Counters;
}

/// A time to live as the control plane gives it; what is negative has expired.
fn ttl(duration: &PbDuration) -> Duration {
    let seconds = u64::try_from(duration.seconds);
    let nanos = u32::try_from(duration.nanos).unwrap_or(0).min(999_999_999);
    seconds.map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos))
}

/// The error detail of a NACK: every rejected resource with its reason.
fn error_detail(rejections: &[Rejection]) -> Status {
    let mut message = String::new();
    for (done, Rejection { resource, reason }) in rejections.iter().enumerate() {
        if message.len() > MAX_MESSAGE_BYTES {
            message.push_str(&format!("; and {} more", rejections.len() - done));
            break;
        }
        if done > 0 {
            message.push_str("; ");
        }
        if !resource.is_empty() {
            message.push_str(resource);
            message.push_str(": ");
        }
        message.push_str(shortened(reason));
    }
    Status {
        code: GRPC_INTERNAL,
        message,
        details: Vec::new(),
    }
}

fn shortened(reason: &str) -> &str {
    reason
        .get(..reason.floor_char_boundary(MAX_REASON_BYTES))
        .unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(resource: &str, reason: &str) -> Rejection {
        Rejection {
            resource: resource.into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn a_nack_names_every_rejected_resource() {
        let status = error_detail(&[
            rejection("a", "name: empty"),
            rejection("", "whole"),
            rejection("b", "x"),
        ]);
        assert_eq!(
            (status.code, status.message.as_str()),
            (13, "a: name: empty; whole; b: x")
        );
    }

    #[test]
    fn a_nack_stays_within_what_a_control_plane_receives() {
        let long = "ü".repeat(5000);
        let many: Vec<_> = (0..10_000).map(|n| rejection(&format!("r{n}"), &long)).collect();
        let message = error_detail(&many).message;
        assert!(
            message.len() < MAX_MESSAGE_BYTES + 2 * MAX_REASON_BYTES,
            "{}",
            message.len()
        );
        assert!(message.ends_with(" more"), "{}", &message[message.len() - 20..]);
    }
}
