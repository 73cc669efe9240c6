//! Proto JSON as Envoy prints it: any message, and the sections of `/config_dump`.
//!
//! Renders from received bytes, so a round trip loses nothing. Knows descriptors, not the model's types.
//! Names are the original snake_case ones, 64-bit integers are strings, defaults are left out, every nested
//! `Any` is expanded, and what Envoy's protos mark `udpa.annotations.sensitive` reads `[redacted]`.
//!
//! Sources: protobuf.dev "ProtoJSON Format"; Envoy `source/server/admin/config_dump_handler.cc` for masks and
//! errors; `source/common/protobuf/utility.cc` for redaction. Checked against what Envoy 1.40 answered
//! (tests/golden).
mod config;
mod descriptors;
mod json;
mod mask;
mod number;
mod print;
mod redact;
mod well_known;

pub use config::{ConfigDump, DumpOptions, DumpResource, DumpScopes, DumpSection, DumpState, RenderError};
pub use descriptors::{Descriptors, DescriptorsError};
pub use number::system_time as timestamp;
pub use print::Defaults;
pub(crate) use well_known::has_own_form;

#[cfg(test)]
mod tests;
