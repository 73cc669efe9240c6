//! Bodies that a proxy compresses and decompresses. What gzip makes differs between libraries: what comes back from it may not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, cluster, configuration, for_route};
use e2e::netns::Namespace;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};

const FILTERS: &str = "envoy.extensions.filters.http";
/// Says what it got in `x-saw`, and answers as `x-status`, `x-say`, `x-size` and `x-how` (`chunked`, `gzip`) ask.
const UPSTREAM: u16 = 9002;

/// A message: its head and body.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// Reads one; `has_body` when a response has what its head says.
    fn read(stream: &mut TcpStream, has_body: bool) -> Self {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut message = Self {
            head,
            body: Vec::new(),
        };
        if !has_body {
            return message;
        }
        if message.value("transfer-encoding").is_some() {
            while let Some(chunk) = read_chunk(stream) {
                message.body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = message.value("content-length") {
            message.body = vec![0; length.parse().unwrap_or_default()];
            let _ = stream.read_exact(&mut message.body);
        }
        message
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    /// The body, as text: what is in it, when it is compressed.
    fn shown(&self) -> String {
        let show = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes.get(..20).unwrap_or(bytes)).into_owned();
            format!("{} bytes {text:?}", bytes.len())
        };
        match self.value("content-encoding") {
            Some("gzip") if !self.body.is_empty() => {
                let mut plain = Vec::new();
                match GzDecoder::new(&self.body[..]).read_to_end(&mut plain) {
                    Ok(_) => format!("gzip of {}", show(&plain)),
                    Err(_) => format!("not gzip {}", show(&self.body)),
                }
            }
            _ => show(&self.body),
        }
    }
}

fn read_chunk(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}

fn text(size: usize) -> Vec<u8> {
    b"again and again, ".iter().copied().cycle().take(size).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut made = Vec::new();
    GzEncoder::new(bytes, Compression::default())
        .read_to_end(&mut made)
        .expect("it takes anything");
    made
}

fn upstream(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)).expect("a free port"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let got = Message::read(&mut stream, true);
            let size = got
                .value("x-size")
                .and_then(|size| size.parse().ok())
                .unwrap_or(200);
            let mut body = text(size);
            let status = got.value("x-status").unwrap_or("200");
            let mut head = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n");
            for said in got.values("x-say") {
                head.push_str(&said.replacen('=', ": ", 1));
                head.push_str("\r\n");
            }
            let seen = [
                "accept-encoding",
                "content-encoding",
                "content-length",
                "transfer-encoding",
            ];
            let seen = seen.map(|name| got.values(name).join("|"));
            head.push_str(&format!("x-saw: {seen:?} {}\r\n", got.shown()));
            let how = got.value("x-how").unwrap_or_default();
            if how.contains("gzip") {
                body = gzip(&body);
            }
            if how.contains("chunked") {
                let (one, two) = body.split_at(body.len() / 2);
                let mut chunks = Vec::new();
                for chunk in [one, two].into_iter().filter(|chunk| !chunk.is_empty()) {
                    chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    chunks.extend_from_slice(chunk);
                    chunks.extend_from_slice(b"\r\n");
                }
                chunks.extend_from_slice(b"0\r\n\r\n");
                body = chunks;
                head.push_str("transfer-encoding: chunked\r\n\r\n");
            } else {
                head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
            }
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
}

/// One request.
struct Asked {
    listener: u16,
    method: &'static str,
    path: &'static str,
    headers: Vec<&'static str>,
    body: Vec<u8>,
}

fn ask(alone: &Alone, asked: &Asked) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT + asked.listener));
    let mut stream = alone
        .namespace
        .run(|| TcpStream::connect(address).expect("the proxy listens"));
    let Asked {
        method,
        path,
        headers,
        body,
        ..
    } = asked;
    let mut wire = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
    for header in headers {
        wire.push_str(header);
        wire.push_str("\r\n");
    }
    if !body.is_empty() {
        wire.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    wire.push_str("\r\n");
    stream.write_all(wire.as_bytes()).expect("the proxy reads");
    stream.write_all(body).expect("the proxy reads");
    let got = Message::read(&mut stream, *method != "HEAD");
    let lines = got.head.lines().filter(|line| {
        let of_chance = ["date:", "x-envoy-upstream-service-time:"];
        !line.is_empty() && !of_chance.iter().any(|name| line.starts_with(name))
    });
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    format!(
        "{} {method} {path} {headers:?} {}: {lines:?} {}",
        asked.listener,
        body.len(),
        got.shown()
    )
}

/// All counters of the filters, but for bytes of compressed bodies.
fn counted(alone: &Alone) -> String {
    let text = alone.admin("/stats").expect("the admin interface").body;
    let lines = text
        .lines()
        .filter(|line| line.contains("compressor.") && !line.contains("total_compressed_bytes"));
    lines.map(|line| format!("\n{line}")).collect()
}

fn run(managers: &[Manager], asked: &[Asked]) {
    check_with(
        &configuration(managers, &[cluster("upstream", &[UPSTREAM])]),
        |namespace, _| upstream(namespace),
        |alone| {
            let mut lines: Vec<String> = asked.iter().map(|asked| ask(alone, asked)).collect();
            lines.push(counted(alone));
            lines
        },
    );
}

fn library(kind: &str, more: &str) -> String {
    format!(
        "{kind}_library: {{ name: text_optimized, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.compression.gzip.{kind}.v3.Gzip, {more} }} }}, "
    )
}

const PLAIN: &str = "x-say: content-type=text/plain";
const GZIP: &str = "accept-encoding: gzip";

/// Headers of requests for responses.
const RESPONSES: &[&[&str]] = &[
    &[PLAIN],
    &[PLAIN, GZIP],
    &[PLAIN, "accept-encoding: br"],
    &[PLAIN, "accept-encoding: *"],
    &[PLAIN, "accept-encoding: identity"],
    &[PLAIN, "accept-encoding: gzip;q=0"],
    &[PLAIN, "accept-encoding: gzip;q=0, *"],
    &[PLAIN, "accept-encoding: identity;q=0.5, gzip;q=0.4"],
    &[PLAIN, "accept-encoding: deflate, gzip ; q=0.5"],
    &[PLAIN, "accept-encoding: gzip;q=x"],
    &[PLAIN, "accept-encoding: GZIP"],
    &[GZIP],
    &[GZIP, "x-say: content-type=image/png"],
    &[GZIP, "x-say: content-type=Application/JSON ; charset=x"],
    &[GZIP, "x-say: content-type=text/x-new"],
    &[PLAIN, GZIP, "x-size: 29"],
    &[PLAIN, GZIP, "x-size: 30"],
    &[PLAIN, GZIP, "x-size: 0"],
    &[PLAIN, GZIP, "x-size: 300000"],
    &[PLAIN, GZIP, "x-how: chunked"],
    &[PLAIN, GZIP, "x-how: chunked", "x-size: 10"],
    &[PLAIN, GZIP, "x-say: etag=\"a\""],
    &[PLAIN, GZIP, "x-say: etag=W/\"a\""],
    &[PLAIN, GZIP, "x-say: vary=Cookie"],
    &[PLAIN, GZIP, "x-say: vary=Cookie, accept-encoding"],
    &[PLAIN, GZIP, "x-say: vary=Cookie, Accept-Encoding"],
    &[PLAIN, "x-say: vary=Cookie"],
    &[PLAIN, GZIP, "x-say: cache-control=max-age=1, No-Transform"],
    &[PLAIN, GZIP, "x-say: content-encoding=br"],
    &[PLAIN, GZIP, "x-status: 404"],
    &[PLAIN, GZIP, "x-status: 206"],
];

/// Headers of requests with a body.
const REQUESTS: &[&[&str]] = &[
    &[],
    &["content-type: text/plain"],
    &["content-type: image/png"],
    &["content-type: text/plain", "content-encoding: br"],
    &["content-type: text/plain", "cache-control: no-transform"],
];

#[test]
fn bodies_are_compressed_as_by_envoy() {
    let name = "envoy.filters.http.compressor";
    let per_route = |fields: &str| {
        for_route(
            name,
            &format!("{FILTERS}.compressor.v3.CompressorPerRoute"),
            fields,
        )
    };
    let routes = format!(
        "{{ match: {{ prefix: /off }}, {} route: {{ cluster: upstream }} }},
         {{ match: {{ prefix: /on }}, {} route: {{ cluster: upstream }} }},
         {{ match: {{ prefix: /removes }}, {} route: {{ cluster: upstream }} }},
         {{ match: {{ prefix: /direct }}, direct_response: {{ status: 200, body: {{ inline_string: \"again and again and again and again\" }} }} }},
         {{ match: {{ prefix: / }}, route: {{ cluster: upstream }} }}",
        per_route("disabled: true"),
        per_route("overrides: { response_direction_config: {} }"),
        per_route("overrides: { response_direction_config: { remove_accept_encoding_header: true } }"),
    );
    let options = [
        String::new(),
        "content_length: 100, content_type: [text/plain, text/x-new], disable_on_etag_header: true, remove_accept_encoding_header: true,".into(),
        "response_direction_config: { common_config: { min_content_length: 100, content_type_matcher: [{ prefix: text/ }] }, weaken_etag_on_compress: true,
           disable_on_etag_header: true, uncompressible_response_codes: [206] }, request_direction_config: { common_config: { min_content_length: 50 } },"
            .into(),
        "response_direction_config: { common_config: { enabled: { default_value: false, runtime_key: a } } },
         request_direction_config: { common_config: { enabled: { default_value: false, runtime_key: b } } },"
            .into(),
        format!(
            "response_direction_config: {{ remove_accept_encoding_header: true }}, {}",
            "request_direction_config: { common_config: { content_type: [text/plain] } },"
        ),
    ];
    let managers: Vec<Manager> = options
        .iter()
        .map(|options| {
            let library = library(
                "compressor",
                "window_bits: 10, compression_level: BEST_SPEED, memory_level: 3",
            );
            Manager::with_routes(&routes).filter(
                name,
                &format!("{FILTERS}.compressor.v3.Compressor"),
                &format!("{options} {library}"),
            )
        })
        .collect();
    let mut asked = Vec::new();
    for (listener, _) in (0..).zip(&options) {
        let mut add = |method, path, headers: &[&'static str], bytes| {
            asked.push(Asked {
                listener,
                method,
                path,
                headers: headers.to_vec(),
                body: text(bytes),
            });
        };
        for headers in RESPONSES {
            add("GET", "/", headers, 0);
        }
        for headers in REQUESTS {
            add("POST", "/", headers, 200);
        }
        add("POST", "/", &["content-type: text/plain"], 40);
        add("POST", "/", &["content-type: text/plain"], 300_000);
        for path in ["/off", "/on", "/removes", "/direct"] {
            add("GET", path, &[PLAIN, GZIP], 0);
            add("POST", path, &["content-type: text/plain", PLAIN, GZIP], 200);
        }
        add("HEAD", "/", &[PLAIN, GZIP], 0);
        add("HEAD", "/", &[PLAIN], 0);
    }
    run(&managers, &asked);
}

#[test]
fn bodies_are_decompressed_as_by_envoy() {
    let options = [
        "",
        "request_direction_config: { advertise_accept_encoding: false, common_config: { ignore_no_transform_header: true } },
         response_direction_config: { common_config: { enabled: { default_value: false, runtime_key: a } } },",
        "request_direction_config: { common_config: { enabled: { default_value: false, runtime_key: a } } },
         response_direction_config: { common_config: { ignore_no_transform_header: true } },",
    ];
    let managers: Vec<Manager> = options
        .iter()
        .map(|options| {
            Manager::with_routes("{ match: { prefix: / }, route: { cluster: upstream } }").filter(
                "envoy.filters.http.decompressor",
                &format!("{FILTERS}.decompressor.v3.Decompressor"),
                &format!("{options} {}", library("decompressor", "max_inflate_ratio: 20")),
            )
        })
        .collect();
    let packed = gzip(&text(2000));
    let mut late = packed.clone();
    late.extend_from_slice(b"more");
    let bodies: &[(&[&'static str], Vec<u8>)] = &[
        (&["content-encoding: gzip"], packed.clone()),
        (&["content-encoding: GZIP"], packed.clone()),
        (&["content-encoding: gzip, br"], packed.clone()),
        (&["content-encoding: br, gzip"], packed.clone()),
        (
            &["content-encoding: gzip", "cache-control: no-transform"],
            packed.clone(),
        ),
        (&["content-encoding: gzip"], b"this is no gzip at all".to_vec()),
        (&["content-encoding: gzip"], packed[..packed.len() - 4].to_vec()),
        (&["content-encoding: gzip"], late),
        (&["content-encoding: gzip"], gzip(&vec![0; 1_000_000])),
        (&["accept-encoding: br"], text(200)),
        (&["accept-encoding: br"], Vec::new()),
        (&[], Vec::new()),
    ];
    let answers: &[&[&str]] = &[
        &["x-how: gzip", "x-say: content-encoding=gzip", "x-say: etag=\"a\""],
        &[
            "x-how: gzip chunked",
            "x-say: content-encoding=gzip, br",
            "x-size: 300",
        ],
        &[
            "x-how: gzip",
            "x-say: content-encoding=gzip",
            "x-say: cache-control=no-transform",
        ],
        &["x-say: content-encoding=br"],
        &["x-say: content-encoding=gzip"],
    ];
    let mut asked = Vec::new();
    for (listener, _) in (0..).zip(&options) {
        for (headers, body) in bodies {
            asked.push(Asked {
                listener,
                method: "POST",
                path: "/",
                headers: headers.to_vec(),
                body: body.clone(),
            });
        }
        for headers in answers {
            asked.push(Asked {
                listener,
                method: "GET",
                path: "/",
                headers: headers.to_vec(),
                body: Vec::new(),
            });
        }
    }
    run(&managers, &asked);
}
