//! The messages of `grpc.health.v1.Health`. Source: grpc/health/v1/health.proto.
use prost::Message as _;

#[derive(prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// The message that asks for the health of `service`; empty: of the server.
pub fn question(service: &str) -> Vec<u8> {
    let service = service.to_owned();
    HealthCheckRequest { service }.encode_to_vec()
}

/// The message says that the service is there; other fields in it are passed over.
pub fn is_serving(message: &[u8]) -> bool {
    HealthCheckResponse::decode(message).is_ok_and(|response| response.status == SERVING)
}
