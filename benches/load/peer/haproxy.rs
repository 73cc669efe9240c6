//! HAProxy, with one thread. It has no buffered log to a file: its lines go to standard output, one write each.

use std::net::SocketAddr;

use super::{Credentials, Job, Kind, Tls};

pub(super) fn configuration(job: &Job, listens: SocketAddr, credentials: &Credentials) -> String {
    let (mode, log) = if job.kind == Kind::Tcp {
        ("tcp", "tcplog")
    } else {
        ("http", "httplog")
    };
    let proto = if job.kind == Kind::Http2 { " proto h2" } else { "" };
    let own = credentials.of(job.tls).both.display();
    let roots = credentials.roots.display();
    let tls = format!(" ssl crt {own} ca-file {roots} verify required");
    let (bind_tls, server_tls) = match job.tls {
        Tls::None => ("", ""),
        Tls::Downstream => (tls.as_str(), ""),
        Tls::Upstream => ("", tls.as_str()),
    };
    let http = if job.kind == Kind::Tcp {
        ""
    } else {
        "  option http-keep-alive\n  http-reuse always\n  unique-id-format %{+X}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid\n  \
         unique-id-header x-request-id\n"
    };
    let upstream = job.upstream;
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n  log stdout format raw local0\n\
         defaults\n  mode {mode}\n  log global\n  option {log}\n{http}  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend bench\n  bind {listens}{proto}{bind_tls}\n  default_backend backend\n\
         backend backend\n  server one {upstream}{proto}{server_tls}\n"
    )
}
