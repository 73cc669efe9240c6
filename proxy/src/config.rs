//! Model to runtime, on the control thread only: what the control plane sent, what of it waits, what workers use.
//!
//! A response goes [`streams`] → [`control::Control`] → the model → accepted or rejected, one resource at a time → warming → published by
//! swapping one cell. Nothing here runs on a worker, and no worker waits for anything here.
pub(crate) mod build;
mod clusters;
mod connections;
pub(crate) mod control;
mod counters;
pub(crate) mod dial;
mod dump;
mod extensions;
mod first;
pub(crate) mod history;
mod listeners;
mod names;
mod owners;
pub(crate) mod problems;
mod proxy_config;
mod recipe;
pub(crate) mod restore;
mod scopes;
mod secret_updates;
mod secrets;
pub(crate) mod snapshot;
mod store;
pub(crate) mod streams;
mod wishes;

#[cfg(test)]
mod tests;
