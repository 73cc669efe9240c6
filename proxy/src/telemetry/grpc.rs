//! The status of a gRPC call, as a response says it or as its HTTP status means it.
use http::{HeaderName, StatusCode};

/// In trailers, or in the head of a response without body.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// For a response that says no status. Source: gRPC `http-grpc-status-mapping.md`, as Envoy `Grpc::Utility::httpToGrpcStatus`.
pub(crate) fn status_of_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
