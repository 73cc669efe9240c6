//! nginx, as one process with one thread. It buffers its access log, as outrigger and Envoy do.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::{Credentials, Job, Kind, Tls};

/// Where Debian puts the module that forwards TCP.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn configuration(
    job: &Job,
    listens: SocketAddr,
    log: &Path,
    credentials: &Credentials,
) -> anyhow::Result<String> {
    let (upstream, log) = (job.upstream, log.display());
    let own = credentials.of(job.tls);
    let (chain, key, roots) = (
        own.chain.display(),
        own.key.display(),
        credentials.roots.display(),
    );
    let head = "daemon off;\nmaster_process off;\nworker_processes 1;\nerror_log stderr error;\nevents { worker_connections 4096; }\n";
    let upstream =
        format!("upstream backend {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}");
    match job.kind {
        Kind::Http2 => bail!("nginx does not speak HTTP/2 to a backend"),
        Kind::Tcp => {
            std::fs::metadata(STREAM_MODULE)
                .with_context(|| format!("{STREAM_MODULE} (Debian package libnginx-mod-stream)"))?;
            let upstream = format!("upstream backend {{ server {}; }}", job.upstream);
            Ok(format!(
                "load_module {STREAM_MODULE};\npid /dev/null;\n{head}stream {{\n\
                 log_format bench '[$time_iso8601] $status $bytes_received $bytes_sent $session_time $upstream_addr $remote_addr';\n\
                 access_log {log} bench buffer=64k flush=1s;\n{upstream}\n\
                 server {{ listen {listens}; tcp_nodelay on; proxy_pass backend; }}\n}}\n"
            ))
        }
        Kind::Http1 => {
            let (listen, server_tls) = match job.tls {
                Tls::Downstream => (
                    format!("{listens} ssl"),
                    format!(
                        "ssl_certificate {chain}; ssl_certificate_key {key}; ssl_client_certificate {roots}; ssl_verify_client on;"
                    ),
                ),
                Tls::None | Tls::Upstream => (listens.to_string(), String::new()),
            };
            // Its check of the server's name knows DNS names only, and a SPIFFE identity is none.
            let (scheme, client_tls) = match job.tls {
                Tls::Upstream => (
                    "https",
                    format!(
                        "proxy_ssl_certificate {chain}; proxy_ssl_certificate_key {key}; proxy_ssl_verify off; \
                         proxy_ssl_protocols TLSv1.2 TLSv1.3;"
                    ),
                ),
                Tls::None | Tls::Downstream => ("http", String::new()),
            };
            Ok(format!(
                "pid /dev/null;\n{head}http {{\n\
                 log_format bench '[$time_iso8601] \"$request\" $status $bytes_sent $request_length $request_time \
                 $upstream_response_time \"$http_user_agent\" \"$request_id\" \"$http_host\" \"$upstream_addr\" $server_addr:$server_port \
                 $remote_addr:$remote_port';\n\
                 access_log {log} bench buffer=64k flush=1s;\nkeepalive_requests 1000000000;\nkeepalive_timeout 3600s;\n\
                 ssl_protocols TLSv1.2 TLSv1.3;\n{upstream}\n\
                 server {{\nlisten {listen};\n{server_tls}\n\
                 location / {{ proxy_pass {scheme}://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                 proxy_set_header Host $http_host; proxy_set_header X-Request-Id $request_id; {client_tls} }}\n}}\n}}\n"
            ))
        }
    }
}
