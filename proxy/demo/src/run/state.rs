//! What the parts of the demo tell the one that prints.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::file::Weights;
use super::tally::Tally;

/// Notes that wait for the printer; it empties them ten times a second.
const MAX_NOTES: usize = 200;

/// The state, shared by all tasks. No lock is held across an `.await`.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tally: Tally,
    pub(super) weights: Weights,
    /// The file as it stands is refused.
    pub(super) is_refused: bool,
    /// By name, in the order of the table.
    pub(super) parts: BTreeMap<usize, (String, PartState)>,
    notes: Vec<Note>,
}

/// How it is with a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PartState {
    Running { pid: u32 },
    Ended { why: String, again: Instant },
}

/// Something that happened, to be said once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// For programs.
    pub(super) event: Event,
    /// For people.
    pub(super) text: String,
}

/// Kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The file was read and every sidecar has it.
    Served,
    /// The file was refused, or is gone.
    Refused,
    /// A process ended.
    Ended,
    /// A process was started again.
    Restarted,
}

impl Event {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Restarted => "restarted",
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, event: Event, text: String) {
        self.lock().say(event, text);
    }

    /// Notes since the last call.
    pub(super) fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.lock().notes)
    }

    /// A process that is not there, and why.
    pub(super) fn ended(&self) -> Option<String> {
        self.lock().parts.values().find_map(|(name, state)| match state {
            PartState::Ended { why, .. } => Some(format!("{name} {why}")),
            PartState::Running { .. } => None,
        })
    }
}

impl State {
    pub(super) fn say(&mut self, event: Event, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(Note { event, text });
        }
    }
}
