//! Carries the watched file to the sidecars, change by change.

use std::time::Instant;

use super::file;
use super::served::Served;
use super::state::{Event, Shared};
use super::watch::{self, Content, Watch};
use crate::control_plane::Named;

/// Serves what the file says, until the task is dropped.
pub(super) async fn run(mut served: Served, mut watch: Watch, shared: Shared) {
    let path = watch.path().display().to_string();
    loop {
        tokio::time::sleep(watch::INTERVAL).await;
        let Some(content) = watch.poll() else { continue };
        let began = Instant::now();
        let changed = match content {
            Content::Text(text) => read(path.clone(), text, served.known()).await,
            Content::Unreadable(reason) => Err(format!("{path}: {reason}")),
        };
        let changed = match changed {
            Ok(resources) => served.update(&resources).await,
            Err(reason) => Err(reason),
        };
        let mut state = shared.lock();
        state.is_refused = changed.is_err();
        match changed {
            Ok(is_new) => {
                state.weights = served.weights();
                if is_new {
                    state.tally.change();
                }
                let weights: Vec<String> = state
                    .weights
                    .iter()
                    .map(|(name, weight)| format!("{name} {weight}"))
                    .collect();
                let took = began.elapsed().as_millis();
                let how = if is_new {
                    format!("served after {took} ms")
                } else {
                    "nothing differs".to_owned()
                };
                state.say(Event::Served, format!("weights {}, {how}", weights.join(", ")));
            }
            Err(reason) => state.say(Event::Refused, format!("refused, what was there stays: {reason}")),
        }
    }
}

/// Off this thread: the descriptors of all messages take a while, and front's requests are timed.
async fn read(path: String, text: Vec<u8>, known: Vec<Named>) -> Result<Vec<Named>, String> {
    let parsed = tokio::task::spawn_blocking(move || file::parse(&path, &text, &known)).await;
    parsed
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}
