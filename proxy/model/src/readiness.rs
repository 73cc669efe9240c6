//! How the application behind this proxy is asked whether it is ready: `readinessProbe` of the proxy's own configuration, which Istio's
//! bootstrap carries in the node's metadata. Source: istio networking/v1alpha3/workload_group.proto `ReadinessProbe`; defaults of
//! pkg/istio-agent/health.
use std::time::Duration;

use crate::field::{Context, FieldPath, Rejection};
use crate::metadata::{Struct, Value};
use crate::node::Node;

/// The probe of a workload outside Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadinessProbe {
    /// What is asked.
    pub method: ProbeMethod,
    /// Before the first question.
    pub initial_delay: Duration,
    /// From one question to the next; 10 s when not given.
    pub period: Duration,
    /// An answer that takes longer is none; 1 s when not given.
    pub answer_timeout: Duration,
    /// So many good answers in a row make it ready; 1 when not given.
    pub success_threshold: u32,
    /// So many bad ones make it not ready; 1 when not given.
    pub failure_threshold: u32,
}

/// Who is asked, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeMethod {
    /// A GET that has to be answered with 200 to 399.
    HttpGet {
        /// Where.
        target: ProbeTarget,
        /// With its query; `/` when not given.
        path: String,
        /// Further headers; `host` in place of the target's.
        headers: Vec<(String, String)>,
    },
    /// A connection that has to be made.
    TcpSocket(ProbeTarget),
    /// A command that has to end with 0: never empty.
    Exec(Vec<String>),
}

/// A port of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// An address or a name; the workload's own address when not given.
    pub target_host: String,
    /// 1 to 65535.
    pub target_port: u16,
}

impl ReadinessProbe {
    /// The probe in the node's metadata, `PROXY_CONFIG.readinessProbe`; `None`: there is none.
    ///
    /// # Errors
    /// It makes no sense, or its kind has no behaviour here (`grpc`, HTTPS).
    pub fn of_node(node: &Node) -> Result<Option<Self>, Rejection> {
        let config = node.metadata.get("PROXY_CONFIG").and_then(Value::as_struct);
        let Some(probe) = config.and_then(|config| config.get("readinessProbe")) else {
            return Ok(None);
        };
        let context = Context::new("node", &node.id);
        let root = context.root();
        let at = root.field("metadata");
        let at = at.field("PROXY_CONFIG");
        let at = at.field("readinessProbe");
        let Some(probe) = probe.as_struct() else {
            return match probe {
                Value::Null => Ok(None),
                _ => Err(at.reject("is no object")),
            };
        };
        Self::convert(&at, probe, &own_address(node)).map(Some)
    }

    fn convert(at: &FieldPath<'_>, probe: &Struct, own_address: &str) -> Result<Self, Rejection> {
        const KNOWN: [&str; 9] = [
            "httpGet",
            "tcpSocket",
            "exec",
            "grpc",
            "initialDelaySeconds",
            "periodSeconds",
            "timeoutSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        only(at, probe, &KNOWN)?;
        let or = |name: &str, default: u32| match number(at, probe, name)? {
            0 => Ok(default),
            value => Ok(value),
        };
        let seconds = |value: u32| Duration::from_secs(value.into());
        Ok(Self {
            method: ProbeMethod::convert(at, probe, own_address)?,
            initial_delay: seconds(number(at, probe, "initialDelaySeconds")?),
            period: seconds(or("periodSeconds", 10)?),
            answer_timeout: seconds(or("timeoutSeconds", 1)?),
            success_threshold: or("successThreshold", 1)?,
            failure_threshold: or("failureThreshold", 1)?,
        })
    }
}

impl ProbeMethod {
    fn convert(at: &FieldPath<'_>, probe: &Struct, own_address: &str) -> Result<Self, Rejection> {
        let kinds = ["httpGet", "tcpSocket", "exec", "grpc"];
        let mut set = kinds.iter().filter_map(|kind| Some((*kind, probe.get(*kind)?)));
        let (kind, value) = set
            .next()
            .ok_or_else(|| at.reject("needs httpGet, tcpSocket or exec"))?;
        if let Some((other, _)) = set.next() {
            return Err(at.reject(format!("has both {kind} and {other}; one of them is asked")));
        }
        let at = at.field(kind);
        let value = value.as_struct().ok_or_else(|| at.reject("is no object"))?;
        match kind {
            "httpGet" => Self::http(&at, value, own_address),
            "tcpSocket" => {
                only(&at, value, &["host", "port"])?;
                Ok(Self::TcpSocket(ProbeTarget::convert(&at, value, own_address)?))
            }
            "exec" => {
                only(&at, value, &["command"])?;
                let command = value.get("command").and_then(Value::as_list).unwrap_or_default();
                let words: Option<Vec<_>> = command
                    .iter()
                    .map(|word| word.as_str().map(str::to_owned))
                    .collect();
                let words = words.filter(|words| !words.is_empty());
                words
                    .map(Self::Exec)
                    .ok_or_else(|| at.field("command").reject("needs a program"))
            }
            _ => Err(
                at.reject("is not asked here yet: the agent issue builds it; use httpGet, tcpSocket or exec")
            ),
        }
    }

    fn http(at: &FieldPath<'_>, get: &Struct, own_address: &str) -> Result<Self, Rejection> {
        only(at, get, &["host", "port", "path", "scheme", "httpHeaders"])?;
        let scheme = text(at, get, "scheme")?;
        if !(scheme.is_empty() || scheme.eq_ignore_ascii_case("http")) {
            let reason = format!("{scheme:?} is not spoken here yet: the agent issue builds https; use HTTP");
            return Err(at.field("scheme").reject(reason));
        }
        let path = match text(at, get, "path")? {
            "" => "/".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(at.field("path").reject("has a character that no path has"));
        }
        let headers = get
            .get("httpHeaders")
            .and_then(Value::as_list)
            .unwrap_or_default();
        let header = |(index, header): (usize, &Value)| {
            let at = at.field("httpHeaders").index(index);
            let header = header.as_struct().ok_or_else(|| at.reject("is no object"))?;
            let (name, value) = (text(&at, header, "name")?, text(&at, header, "value")?);
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(at
                    .field("name")
                    .reject(format!("{name:?} is no name of a header")));
            }
            if value
                .bytes()
                .any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f)
            {
                return Err(at.field("value").reject("has a character that no header has"));
            }
            Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Self::HttpGet {
            target: ProbeTarget::convert(at, get, own_address)?,
            path,
            headers: headers.iter().enumerate().map(header).collect::<Result<_, _>>()?,
        })
    }
}

impl ProbeTarget {
    fn convert(at: &FieldPath<'_>, from: &Struct, own_address: &str) -> Result<Self, Rejection> {
        let port = number(at, from, "port")?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let host = match text(at, from, "host")? {
            "" => own_address,
            host => host,
        };
        if host.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(at.field("host").reject(format!("{host:?} is no host")));
        }
        Ok(Self {
            target_host: host.to_owned(),
            target_port: port.ok_or_else(|| at.field("port").reject("needs to be between 1 and 65535"))?,
        })
    }
}

/// As the agent: the first address of the workload, else this machine.
fn own_address(node: &Node) -> String {
    let addresses = node.metadata.get("INSTANCE_IPS").and_then(Value::as_str);
    let first = addresses.and_then(|list| list.split(',').next()).map(str::trim);
    first
        .filter(|first| !first.is_empty())
        .unwrap_or("localhost")
        .to_owned()
}

fn only(at: &FieldPath<'_>, from: &Struct, known: &[&str]) -> Result<(), Rejection> {
    match from.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(at.reject_name(format!("knows no {name:?}"), name, known.iter().copied())),
    }
}

fn text<'a>(at: &FieldPath<'_>, from: &'a Struct, name: &str) -> Result<&'a str, Rejection> {
    match from.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(at.field(name).reject("is no text")),
    }
}

/// 0 when not given; protobuf's JSON also writes numbers as text.
fn number(at: &FieldPath<'_>, from: &Struct, name: &str) -> Result<u32, Rejection> {
    let number = match from.get(name) {
        None | Some(Value::Null) => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Number(number)) => format!("{number}").parse().ok(),
        Some(_) => None,
    };
    number.ok_or_else(|| at.field(name).reject("is no whole number of 0 or more"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What becomes of a probe that is written as JSON.
    fn read(json: &str) -> Result<ReadinessProbe, String> {
        let json = format!(
            "{{ \"node\": {{ \"id\": \"n\", \"metadata\": {{ \"INSTANCE_IPS\": \"10.0.0.7,::1\", \"PROXY_CONFIG\": \
                            {{ \"readinessProbe\": {json} }} }} }} }}"
        );
        let parsed = crate::document::parse_bootstrap(
            "b.json",
            json.as_bytes(),
            None,
            crate::document::UnknownFields::Refuse,
        );
        let bootstrap = crate::decode::bootstrap(parsed.unwrap().0).unwrap().value;
        match ReadinessProbe::of_node(&bootstrap.node) {
            Ok(probe) => Ok(probe.unwrap()),
            Err(rejection) => Err(rejection.to_string()),
        }
    }

    #[test]
    fn what_is_not_given_is_as_with_the_agent() {
        let probe = read(r#"{ "httpGet": { "port": 8080 } }"#).unwrap();
        let target = ProbeTarget {
            target_host: "10.0.0.7".to_owned(),
            target_port: 8080,
        };
        let expected = ReadinessProbe {
            method: ProbeMethod::HttpGet {
                target,
                path: "/".to_owned(),
                headers: Vec::new(),
            },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 1,
        };
        assert_eq!(probe, expected);
    }

    #[test]
    fn everything_can_be_given() {
        let probe = read(
            r#"{ "tcpSocket": { "host": "h", "port": "9" }, "initialDelaySeconds": 3, "periodSeconds": 4, "timeoutSeconds": 5,
                 "successThreshold": 6, "failureThreshold": 7 }"#,
        )
        .unwrap();
        let target = ProbeTarget {
            target_host: "h".to_owned(),
            target_port: 9,
        };
        assert_eq!(probe.method, ProbeMethod::TcpSocket(target));
        let seconds = [probe.initial_delay, probe.period, probe.answer_timeout].map(|time| time.as_secs());
        assert_eq!(seconds, [3, 4, 5]);
        assert_eq!((probe.success_threshold, probe.failure_threshold), (6, 7));
        let probe = read(r#"{ "exec": { "command": ["true", "x"] } }"#).unwrap();
        assert_eq!(
            probe.method,
            ProbeMethod::Exec(vec!["true".to_owned(), "x".to_owned()])
        );
        let probe = read(
            r#"{ "httpGet": { "port": 1, "path": "a?b", "scheme": "HTTP", "httpHeaders": [{ "name": "X", "value": "y" }] } }"#,
        );
        let ProbeMethod::HttpGet { path, headers, .. } = probe.unwrap().method else {
            panic!("another method")
        };
        assert_eq!(
            (path.as_str(), headers.as_slice()),
            ("/a?b", [("X".to_owned(), "y".to_owned())].as_slice())
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_path() {
        let check = |json: &str, expected: &str| {
            let refused = read(json).unwrap_err();
            assert!(refused.contains(expected), "{json}: {refused}");
        };
        check("{}", "readinessProbe: needs httpGet, tcpSocket or exec");
        check("3", "readinessProbe: is no object");
        check(
            r#"{ "httpGet": { "port": 1 }, "exec": {} }"#,
            "has both httpGet and exec",
        );
        check(
            r#"{ "httpGet": {} }"#,
            "httpGet.port: needs to be between 1 and 65535",
        );
        check(r#"{ "tcpSocket": { "port": 65536 } }"#, "tcpSocket.port");
        check(r#"{ "tcpSocket": { "port": 1.5 } }"#, "is no whole number");
        check(r#"{ "tcpSocket": { "prt": 1 } }"#, "did you mean");
        check(
            r#"{ "exec": { "command": [] } }"#,
            "exec.command: needs a program",
        );
        check(r#"{ "grpc": { "port": 1 } }"#, "grpc: is not asked here yet");
        check(
            r#"{ "httpGet": { "port": 1, "scheme": "HTTPS" } }"#,
            "httpGet.scheme",
        );
        check(r#"{ "httpGet": { "port": 1, "path": "a b" } }"#, "httpGet.path");
        check(
            r#"{ "httpGet": { "port": 1, "httpHeaders": [{ "name": "a b" }] } }"#,
            "httpGet.httpHeaders[0].name",
        );
        check(
            r#"{ "httpGet": { "port": 1, "httpHeaders": [{ "name": "a", "value": "b\r\nc: d" }] } }"#,
            "httpGet.httpHeaders[0].value",
        );
    }
}
