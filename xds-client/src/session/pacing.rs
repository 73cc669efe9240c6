//! Answers on their way out, and how fast refusals follow each other.
//!
//! A control plane that answers a refusal by sending the refused version again at once (go-control-plane does: the version that is
//! acknowledged is not its own) makes a loop as fast as both can run. So the second refusal of a type in a row, and each after it, waits
//! for a moment that grows. The control plane learns of it a second later at most; other types are not held up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Between the first two refusals of a type in a row; doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The answers of one stream.
#[derive(Debug)]
pub(super) struct Answers<Q> {
    waiting: VecDeque<Waiting<Q>>,
    /// Types whose last answer was a refusal.
    refusing: HashMap<Arc<str>, Refusing>,
}

#[derive(Debug)]
struct Waiting<Q> {
    type_url: Arc<str>,
    due: Duration,
    request: Q,
}

#[derive(Debug)]
struct Refusing {
    /// When the last refusal goes out.
    due: Duration,
    pause: Duration,
}

impl<Q> Default for Answers<Q> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            refusing: HashMap::new(),
        }
    }
}

impl<Q> Answers<Q> {
    /// Those of one type go out in the order in which they are pushed.
    pub(super) fn push(&mut self, type_url: &str, request: Q, is_refusal: bool, now: Duration) {
        let type_url: Arc<str> = type_url.into();
        let due = match self.refusing.get_mut(&type_url) {
            _ if !is_refusal => {
                self.refusing.remove(&type_url);
                now
            }
            None => {
                let refusing = Refusing {
                    due: now,
                    pause: FIRST_PAUSE,
                };
                self.refusing.insert(type_url.clone(), refusing);
                now
            }
            Some(refusing) => {
                refusing.due = refusing.due.saturating_add(refusing.pause).max(now);
                refusing.pause = refusing.pause.saturating_mul(2).min(LONGEST_PAUSE);
                refusing.due
            }
        };
        let of_type = self.waiting.iter().filter(|w| w.type_url == type_url);
        let due = of_type.map(|w| w.due).fold(due, Duration::max);
        self.waiting.push_back(Waiting {
            type_url,
            due,
            request,
        });
    }

    /// The next one whose time has come.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Q> {
        let due = self.waiting.iter().position(|w| w.due <= now)?;
        self.waiting.remove(due).map(|w| w.request)
    }

    pub(super) fn any_due(&self, now: Duration) -> bool {
        self.waiting.iter().any(|w| w.due <= now)
    }

    /// When the next one that is held may go.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.iter().map(|w| w.due).min()
    }

    /// An answer of the type has not gone out: nothing else of the type may go before it.
    pub(super) fn holds(&self, type_url: &str) -> bool {
        self.waiting.iter().any(|w| &*w.type_url == type_url)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Their nonces mean nothing any more. How fast refusals follow each other is remembered: a stream that ends for each
    /// of them must not make a loop either.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Pushes a refusal whenever the one before is gone, as a control plane does that sends the same again at once.
    fn refusals_in(time: Duration) -> usize {
        let mut answers = Answers::default();
        let mut count = 0;
        let mut now = Duration::ZERO;
        while now < time {
            answers.push("t", (), true, now);
            now = answers.next_due().unwrap_or(now).max(now);
            assert!(answers.pop(now).is_some());
            count += 1;
        }
        count
    }

    #[test]
    fn a_loop_of_refusals_slows_down_to_one_a_second() {
        assert_eq!(refusals_in(Duration::from_secs(60)), 65);
    }

    #[test]
    fn the_first_refusal_and_every_acceptance_go_at_once() {
        let mut answers = Answers::default();
        answers.push("t", 1, true, ms(0));
        answers.push("t", 2, true, ms(0));
        answers.push("u", 3, true, ms(0));
        answers.push("t", 4, false, ms(0)); // after 2, which waits
        let pop =
            |answers: &mut Answers<i32>, now| std::iter::from_fn(|| answers.pop(now)).collect::<Vec<_>>();
        assert_eq!(pop(&mut answers, ms(0)), [1, 3]);
        assert_eq!(
            (answers.any_due(ms(49)), answers.next_due()),
            (false, Some(ms(50)))
        );
        assert!(answers.holds("t") && !answers.holds("u"));
        assert_eq!(pop(&mut answers, ms(50)), [2, 4]);
        answers.push("t", 5, true, ms(60)); // a new row
        assert_eq!(pop(&mut answers, ms(60)), [5]);
    }

    #[test]
    fn rare_refusals_do_not_wait() {
        let mut answers = Answers::default();
        for second in 0..10 {
            answers.push("t", second, true, ms(second * 2000));
            assert_eq!(answers.pop(ms(second * 2000)), Some(second));
        }
    }
}
