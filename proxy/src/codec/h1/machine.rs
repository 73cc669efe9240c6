//! HTTP/1 from a client's bytes to requests, and from responses to bytes. No I/O, no clock, no task.
//!
//! [`Receiver`] is fed a buffer and takes heads and body pieces off its front; what comes of a byte stream does not depend on how it was
//! split (`fuzz` holds that). [`encode`] writes response heads and chunks. Refusals are values: which status, which
//! `%RESPONSE_CODE_DETAILS%`.
//!
//! What is accepted is what Envoy 1.40's Balsa parser accepts, so that an application sees the same requests behind either proxy: bare LF
//! ends a line, folded lines are joined. Where that leaves room the text goes on in its canonical form: framing is always made anew.
//! Source: RFC 9112; Envoy `http1/balsa_parser.cc`, `http1/codec_impl.cc`; each case run in tests/it/alone/http1.rs.
pub(super) mod chunked;
pub(super) mod encode;
mod fields;
pub(crate) mod fuzz;
pub(super) mod head_end;
mod receiver;
pub(super) mod request;
mod request_line;
mod target;

pub(super) use receiver::{Piece, Receiver};
pub(super) use request::ReceivedHead;
