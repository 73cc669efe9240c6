//! One HTTP stream from its head to its access log. Read [`stream`] first; then [`head`], [`route_table`], [`filter`], [`router`].
//!
//! Knows codecs by their heads and bodies, never a socket.
mod client;
mod cluster_policies;
pub(crate) mod downstream;
mod edge;
mod extras;
pub(crate) mod filter;
pub(crate) mod grpc_call;
pub(crate) mod hash_policy;
pub(crate) mod head;
pub(crate) mod header_changes;
mod local_reply;
pub(crate) mod manager;
mod matcher;
mod path;
mod redirect;
pub(crate) mod request_id;
pub(crate) mod route_table;
pub(crate) mod router;
pub(crate) mod scoped_routes;
pub(crate) mod stream;
mod upgrade;
mod url;
mod xfcc;
