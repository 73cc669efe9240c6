//! What the demo shows: a table that is drawn in place on a terminal, a line a second elsewhere, or JSON.

mod json;
mod line;
mod table;
mod text;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::file::Weights;
use super::places::Replaced;
use super::state::{Note, PartState, Shared};
use super::tally::Tally;

/// Columns when nobody says how many there are.
const COLUMNS: usize = 80;
/// Lines likewise.
const LINES: usize = 24;

/// What is known before the first request.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The file to edit.
    pub(super) file: PathBuf,
    /// Workload and admin address of each sidecar.
    pub(super) admin: Vec<(&'static str, SocketAddr)>,
    /// Where front's application finds bill-service.
    pub(super) bill_service: SocketAddr,
    pub(super) replaced: Vec<Replaced>,
}

/// The state at the end of a second.
pub(super) struct View {
    pub(super) elapsed: Duration,
    pub(super) now: Instant,
    pub(super) tally: Tally,
    pub(super) weights: Weights,
    pub(super) is_refused: bool,
    pub(super) parts: Vec<(String, PartState)>,
}

impl View {
    pub(super) fn of(shared: &Shared, start: Instant) -> Self {
        let state = shared.lock();
        let now = Instant::now();
        Self {
            elapsed: now.duration_since(start),
            now,
            tally: state.tally.clone(),
            weights: state.weights.clone(),
            is_refused: state.is_refused,
            parts: state.parts.values().cloned().collect(),
        }
    }

    /// Versions that have a weight or gave an answer, and the weight.
    fn versions(&self) -> Vec<(&str, Option<u32>)> {
        let mut versions: Vec<(&str, Option<u32>)> = self
            .weights
            .iter()
            .map(|(name, weight)| (name.as_str(), Some(*weight)))
            .collect();
        for name in self.tally.total.versions.keys() {
            if !versions.iter().any(|(known, _)| known == name) {
                versions.push((name, None));
            }
        }
        versions
    }
}

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Table,
    Lines,
    Json,
}

/// Writes to standard output.
///
/// Every method fails when nobody reads any more; then the demo is over.
#[derive(Debug)]
pub(super) struct Report {
    style: Style,
    /// Lines of the table that stand on the screen.
    drawn: usize,
    /// Notes for the next JSON object.
    notes: Vec<Note>,
    /// Identities that a line has named.
    identities: usize,
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let style = match (is_json, io::stdout().is_terminal() && !is_dumb) {
            (true, _) => Style::Json,
            (false, true) => Style::Table,
            (false, false) => Style::Lines,
        };
        Self {
            style,
            drawn: 0,
            notes: Vec::new(),
            identities: 0,
        }
    }

    pub(super) fn begin(&mut self, facts: &Facts) -> io::Result<()> {
        match self.style {
            Style::Json => put(&format!("{}\n", json::start(facts))),
            Style::Table | Style::Lines => put(&line::start(facts, self.columns())),
        }
    }

    /// Says what happened, above the table.
    pub(super) fn notes(&mut self, notes: Vec<Note>, view: &View) -> io::Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let said: String = notes
            .iter()
            .map(|note| line::note(note, view.elapsed, self.columns()))
            .collect();
        match self.style {
            Style::Json => {
                self.notes.extend(notes);
                Ok(())
            }
            Style::Lines => put(&said),
            Style::Table => {
                put(&(self.erase() + &said))?;
                self.second(view)
            }
        }
    }

    pub(super) fn second(&mut self, view: &View) -> io::Result<()> {
        match self.style {
            Style::Json => put(&format!(
                "{}\n",
                json::second(view, &std::mem::take(&mut self.notes))
            )),
            Style::Lines => {
                let new = line::identities(view, self.identities);
                self.identities = view.tally.identities.len();
                put(&(line::second(view) + &new))
            }
            Style::Table => {
                let (columns, lines) = size();
                let mut rows = table::rows(view, columns);
                // Else the top scrolls away and can no longer be overwritten.
                rows.truncate(lines.saturating_sub(1));
                let text = self.erase() + &rows.concat();
                self.drawn = rows.len();
                put(&text)
            }
        }
    }

    pub(super) fn end(&mut self, view: &View) -> io::Result<()> {
        match self.style {
            Style::Json => put(&format!(
                "{}\n",
                json::summary(view, &std::mem::take(&mut self.notes))
            )),
            Style::Table | Style::Lines => put(&line::summary(view)),
        }
    }

    /// What takes the drawn table away.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    fn columns(&self) -> usize {
        if self.style == Style::Table {
            size().0
        } else {
            COLUMNS
        }
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    known.map_or((COLUMNS, LINES), |size| (size.ws_col.into(), size.ws_row.into()))
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
