//! What passed between the control plane and its clients.

use std::time::Instant;

/// What a client said to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds the response's resources.
    Ack,
    /// It refused, and said why.
    Nack(String),
}

/// A response that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The node it went to.
    pub node: String,
    /// Its type.
    pub type_url: String,
    /// What the client repeats in its answer.
    pub nonce: String,
    /// Names of the resources in it.
    pub names: Vec<String>,
    /// Whether the client had subscribed to the type; if not, no answer is due.
    pub is_subscribed: bool,
    /// When it was queued.
    pub at: Instant,
    /// The first answer, and when it came.
    pub verdict: Option<(Verdict, Instant)>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Of which stream, counted from 1.
    pub stream: u64,
    /// The node, once the stream has named it.
    pub node: Option<String>,
    /// Its type.
    pub type_url: String,
    /// Names to subscribe to.
    pub subscribe: Vec<String>,
    /// Names to unsubscribe from.
    pub unsubscribe: Vec<String>,
    /// How many resources the client said it holds.
    pub initial_versions: usize,
    /// The nonce that it answers, or empty.
    pub nonce: String,
    /// Why it refuses, if it does.
    pub error: Option<String>,
    /// When it came.
    pub at: Instant,
}

/// Entries kept of each kind; the oldest go first.
const KEPT: usize = 20_000;

/// What passed last, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Responses of all streams.
    pub sent: Vec<Sent>,
    /// Requests of all streams.
    pub received: Vec<Received>,
}

impl Journal {
    /// The response with this nonce.
    pub fn response(&self, nonce: &str) -> Option<&Sent> {
        self.sent.iter().rev().find(|sent| sent.nonce == nonce)
    }

    /// Refused responses of a node: type and reason.
    pub fn refusals(&self, node: &str) -> Vec<(String, String)> {
        self.sent
            .iter()
            .filter(|sent| sent.node == node)
            .filter_map(|sent| match &sent.verdict {
                Some((Verdict::Nack(reason), _)) => Some((sent.type_url.clone(), reason.clone())),
                _ => None,
            })
            .collect()
    }

    /// Whether every response of a node that is due an answer has one, and there is at least one.
    pub fn is_settled(&self, node: &str) -> bool {
        let mut sent = self.sent.iter().filter(|sent| sent.node == node).peekable();
        sent.peek().is_some() && sent.all(|sent| sent.verdict.is_some() || !sent.is_subscribed)
    }

    pub(super) fn note_sent(&mut self, sent: Sent) {
        if self.sent.len() >= KEPT {
            self.sent.drain(..KEPT / 2);
        }
        self.sent.push(sent);
    }

    pub(super) fn note_received(&mut self, received: Received) {
        if self.received.len() >= KEPT {
            self.received.drain(..KEPT / 2);
        }
        self.received.push(received);
    }

    pub(super) fn answered(&mut self, nonce: &str, verdict: Verdict) {
        let sent = self.sent.iter_mut().rev().find(|sent| sent.nonce == nonce);
        if let Some(sent) = sent
            && sent.verdict.is_none()
        {
            sent.verdict = Some((verdict, Instant::now()));
        }
    }
}
