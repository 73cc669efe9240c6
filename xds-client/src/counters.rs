//! What a client counts over its life, over all types and connections.

/// Plain numbers, read with [`crate::Handle::counters`] or from a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Attempts at a connection, whatever came of them.
    pub connect_attempts: u64,
    /// Connections that came up.
    pub connects: u64,
    /// Attempts that ended without a connection.
    pub connect_failures: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Connections that are open now: a number that goes up and down.
    pub open_connections: u64,
    /// Calls (streams) that were begun.
    pub calls: u64,
    /// Calls that are open now: a number that goes up and down.
    pub open_calls: u64,
    /// Bytes read from connections, with all their framing.
    pub received_bytes: u64,
    /// Bytes written to connections, with all their framing.
    pub sent_bytes: u64,
    /// Requests handed to a stream: subscriptions and answers.
    pub requests: u64,
    /// Responses received.
    pub responses: u64,
    /// Responses answered with an ACK.
    pub updates_accepted: u64,
    /// Responses answered with a NACK.
    pub updates_rejected: u64,
    /// Resources named in those NACKs.
    pub resources_rejected: u64,
    /// Resources, or removals of resources, that nobody asked for: dropped and not held against the response.
    pub unrequested: u64,
    /// Responses of a type without a subscription: dropped and ACKed.
    pub unrequested_types: u64,
    /// Answers whose stream ended before they were sent: their nonces mean nothing to the next stream.
    pub stale_nonces: u64,
    /// Resources that were removed because their time to live was over.
    pub expired: u64,
    /// Heartbeats: resources without a body that prolong a time to live.
    pub heartbeats: u64,
    /// State-of-the-world wildcard responses without any resource while there were some.
    pub emptied_sets: u64,
    /// `resource_errors` in responses: the control plane itself could not make a resource.
    pub resource_errors: u64,
}
