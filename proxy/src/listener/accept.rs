//! Accepting on one socket of one worker until the listener goes away.
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::connection;
use super::runtime::ListenerCell;
use super::table::ListenerTable;
use crate::worker;

/// Pause after an error that comes from a lack of something (file descriptors, memory): it will not be better at once.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// Accepts on `socket` until the listener drains. Runs as a task of the worker.
pub(crate) async fn run(socket: std::net::TcpListener, cell: Arc<ListenerCell>, table: Arc<ListenerTable>) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listening socket cannot be used by this worker");
            return;
        }
    };
    let mut drain = cell.sockets_watch();
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                exhausted = false;
                let (cell, table) = (cell.clone(), table.clone());
                worker::spawn(async move { connection::run(cell, table, stream, remote).await });
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::warn!(%error, "cannot accept connections; trying on (raise the limit of open files?)");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
