//! What Istio's agent does beside Envoy, done in the same process. So far: whether the application is ready, told to the control plane.
mod health;
mod probe;

pub(crate) use self::health::watch;
