//! What is known about one stream or connection, and the lines written about it.
//!
//! Owns [`stream_info::StreamInfo`] (filled by the data path), [`response_flag::ResponseFlags`] access logs and Istio's metrics. May use `stats`; knows no codec, TLS or upstream.
pub(crate) mod access_log;
pub(crate) mod format;
pub(crate) mod grpc;
pub(crate) mod istio_stats;
pub(crate) mod peer;
pub(crate) mod recent;
pub(crate) mod response_flag;
pub(crate) mod stream_info;
pub(crate) mod workload;
