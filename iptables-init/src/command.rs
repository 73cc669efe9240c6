//! What this program does beside writing rules.

use std::io::{self, Write};

use crate::config::{Config, Explain};
use crate::{Exit, explain, host};

/// `--explain`
pub(crate) fn explain(config: &Config, about: &Explain) -> Exit {
    let route = match about.question.way {
        explain::Way::Out(to) => host::route(to.ip()),
        explain::Way::In(_) => host::way_in(),
    };
    print(&explain::text(
        config,
        &about.question,
        about.owner,
        route.as_ref(),
    ))
}

/// A reader that has gone is the only trouble there can be.
fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
