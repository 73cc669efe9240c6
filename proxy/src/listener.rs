//! Downstream connections from accept to the end of their filter chain. Read [`connection`] first.
pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod filter_chain;
pub(crate) mod inspect;
pub(crate) mod limits;
mod record;
pub(crate) mod runtime;
pub(crate) mod table;
