//! Reads the verdicts out of this crate's sources: the calls of `verdicts!` and `choices!`.
use std::collections::HashMap;
use std::path::Path;

use prost_reflect::MessageDescriptor;

use crate::dump::Descriptors;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Supported,
    Partly,
    Inert,
    Unsupported,
    Refused,
    /// Kept in the model for the issue that the text names; whatever holds the message lists it.
    Awaited,
}

/// One field of one message at one place.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    /// Full protobuf name.
    pub(super) message: String,
    /// Function or type whose code this is; tells apart places that use one message differently.
    pub(super) place: String,
    /// Field or oneof.
    pub(super) field: String,
    pub(super) kind: Kind,
    pub(super) text: String,
    /// The oneof that the field is a member of, if its verdict is in a `choices!`.
    pub(super) oneof: Option<String>,
}

/// The Rust names of Istio's messages.
const ISTIO: [(&str, &str); 15] = [
    (
        "istio::MetadataExchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ),
    ("istio::PeerMetadata", "io.istio.http.peer_metadata.Config"),
    (
        "istio::DiscoveryMethod",
        "io.istio.http.peer_metadata.Config.DiscoveryMethod",
    ),
    (
        "istio::PropagationMethod",
        "io.istio.http.peer_metadata.Config.PropagationMethod",
    ),
    (
        "istio::IstioHeaders",
        "io.istio.http.peer_metadata.Config.IstioHeaders",
    ),
    (
        "istio::AlpnConfig",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    ),
    (
        "istio::AlpnOverride",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig.AlpnOverride",
    ),
    ("istio::StatsConfig", "stats.PluginConfig"),
    ("istio::MetricConfig", "stats.MetricConfig"),
    ("istio::NameTable", "istio.networking.nds.v1.NameTable"),
    ("istio::ProxyConfig", "istio.mesh.v1alpha1.ProxyConfig"),
    ("istio::NameInfo", "istio.networking.nds.v1.NameTable.NameInfo"),
    (
        "Discovery",
        "io.istio.http.peer_metadata.Config.DiscoveryMethod.method_specifier",
    ),
    (
        "Propagation",
        "io.istio.http.peer_metadata.Config.PropagationMethod.method_specifier",
    ),
    ("", ""),
];

/// In place of the issue that builds a field: nothing will.
pub(super) const NEVER: &str = "never";

/// All verdicts, by file and place.
pub(super) fn all(descriptors: &Descriptors) -> Vec<Verdict> {
    let names: HashMap<String, String> = descriptors
        .message_names()
        .map(|name| (normal(&name), name))
        .collect();
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files.sort();
    let mut verdicts = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        Reader {
            names: &names,
            descriptors,
            aliases: aliases(&source),
        }
        .read(&source, &mut verdicts);
    }
    verdicts
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            collect(&path, files);
        } else if name.ends_with(".rs") && name != "field.rs" && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// Rust and protobuf spell names differently; this is what they share.
fn normal(name: &str) -> String {
    name.replace("r#", "")
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase()
}

/// What the `use` lines of a file make of a first path segment.
fn aliases(source: &str) -> HashMap<String, String> {
    let mut aliases = HashMap::new();
    for statement in source.split("use ").skip(1) {
        let Some((tree, _)) = statement.split_once(';') else {
            continue;
        };
        let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        expand(&tree, "", &mut aliases);
    }
    aliases
}

fn expand(tree: &str, prefix: &str, aliases: &mut HashMap<String, String>) {
    match tree.split_once('{') {
        Some((head, inner)) => {
            let inner = inner
                .strip_suffix('}')
                .unwrap_or(inner)
                .trim()
                .trim_end_matches(',');
            for part in split_top(inner) {
                expand(part.trim(), &format!("{prefix}{}", head.trim()), aliases);
            }
        }
        None => {
            let (path, alias) = tree
                .split_once(" as ")
                .unwrap_or((tree, tree.rsplit("::").next().unwrap()));
            let full = match path {
                "self" => prefix.trim_end_matches("::").to_owned(),
                path => format!("{prefix}{path}"),
            };
            let alias = if alias == "self" {
                full.rsplit("::").next().unwrap()
            } else {
                alias
            };
            aliases.insert(alias.to_owned(), full.clone());
        }
    }
}

/// Splits at commas outside braces and quotes.
fn split_top(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0, false);
    for (index, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => (),
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

struct Reader<'a> {
    names: &'a HashMap<String, String>,
    descriptors: &'a Descriptors,
    aliases: HashMap<String, String>,
}

impl Reader<'_> {
    fn read(&self, source: &str, verdicts: &mut Vec<Verdict>) {
        for (start, _) in source
            .match_indices("verdicts!(")
            .chain(source.match_indices("choices!("))
        {
            let body = &source[start..];
            let is_choices = body.starts_with("choices!");
            let body = &body[body.find('(').unwrap() + 1..];
            let body = &body[..closing(body)];
            let body = if is_choices {
                body
            } else {
                body.split_once("=>").unwrap().1
            };
            let (path, groups) = body.split_once('{').unwrap();
            let groups = groups.trim_end().strip_suffix('}').unwrap();
            let (message, oneof) = self.resolve(path.trim(), is_choices);
            let place = place(&source[..start]);
            for (kind, issue, items) in split_groups(groups) {
                for item in split_top(items) {
                    let (name, text) = item.split_once(':').unwrap_or((item, issue));
                    let text = text.trim().trim_matches('"');
                    let text = match issue {
                        NEVER => format!("{NEVER}: {text}"),
                        _ => text.to_owned(),
                    };
                    let field = self.field(&message, name.trim());
                    let (message, place) = (message.full_name().to_owned(), place.clone());
                    verdicts.push(Verdict {
                        message,
                        place,
                        field,
                        kind,
                        text,
                        oneof: oneof.clone(),
                    });
                }
            }
        }
    }

    /// The message, and for a oneof its name.
    fn resolve(&self, path: &str, is_oneof: bool) -> (MessageDescriptor, Option<String>) {
        let mut full = path.to_owned();
        while let Some((first, rest)) = full.split_once("::").or(Some((full.as_str(), "")))
            && let Some(target) = self.aliases.get(first)
            && target != first
            && !full.starts_with("envoy_types")
        {
            full = if rest.is_empty() {
                target.clone()
            } else {
                format!("{target}::{rest}")
            };
        }
        let istio = ISTIO
            .iter()
            .find(|(rust, _)| !rust.is_empty() && (*rust == path || full.ends_with(&format!("::{rust}"))));
        let full = match istio {
            Some((_, proto)) => (*proto).to_owned(),
            None => full.trim_start_matches("envoy_types::pb::").to_owned(),
        };
        let (message, oneof) = match is_oneof {
            false => (full.as_str(), None),
            true => {
                let split = full
                    .rfind("::")
                    .map(|i| (i, i + 2))
                    .or(full.rfind('.').map(|i| (i, i + 1)));
                let (end, begin) = split.unwrap_or_else(|| panic!("{path}: {full}"));
                (&full[..end], Some(&full[begin..]))
            }
        };
        let name = self
            .names
            .get(&normal(message))
            .unwrap_or_else(|| panic!("no message {message} ({path})"));
        let descriptor = self.descriptors.message(name).unwrap();
        let oneof = oneof.map(|wanted| {
            let found = descriptor
                .oneofs()
                .find(|oneof| normal(oneof.name()) == normal(wanted));
            found
                .unwrap_or_else(|| panic!("no oneof {wanted} in {name}"))
                .name()
                .to_owned()
        });
        (descriptor, oneof)
    }

    /// The protobuf name of a field, oneof, or variant of a oneof.
    fn field(&self, message: &MessageDescriptor, rust: &str) -> String {
        let wanted = normal(rust);
        let fields = message.fields().map(|field| field.name().to_owned());
        let mut names = fields.chain(message.oneofs().map(|oneof| oneof.name().to_owned()));
        let found = names.find(|name| normal(name) == wanted || format!("{}2", normal(name)) == wanted);
        found.unwrap_or_else(|| panic!("{} has no field {rust}", message.full_name()))
    }
}

/// The type or function around a place in the source.
fn place(before: &str) -> String {
    let is_start =
        |line: &&str| line.starts_with("impl ") || line.starts_with("fn ") || line.starts_with("pub");
    let line = before.lines().rev().find(is_start).unwrap_or_default();
    let after = line.rsplit(" fn ").next().unwrap_or(line);
    let name = after.trim_start_matches("impl ").trim_start_matches("fn ");
    name.split(['(', ' ', '<', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn closing(body: &str) -> usize {
    let (mut depth, mut quoted) = (1, false);
    for (index, c) in body.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return index;
        }
    }
    panic!("a macro call that does not end");
}

/// Kind, the issue that builds its fields if the group names one, and the fields.
fn split_groups(text: &str) -> Vec<(Kind, &str, &str)> {
    let mut groups = Vec::new();
    let mut rest = text.trim();
    while let Some((word, after)) = rest.split_once('{') {
        let word = word.trim();
        let named = if word == NEVER { NEVER } else { "" };
        let (word, issue) = word.split_once(' ').unwrap_or((word, named));
        let kind = match word {
            "supported" => Kind::Supported,
            "partly" => Kind::Partly,
            "inert" => Kind::Inert,
            "unsupported" => Kind::Unsupported,
            "never" => Kind::Unsupported,
            "refused" => Kind::Refused,
            "awaited" => Kind::Awaited,
            other => panic!("{other:?} is no verdict"),
        };
        let mut quoted = false;
        let end = after.char_indices().find(|(_, c)| {
            quoted ^= *c == '"';
            *c == '}' && !quoted
        });
        let end = end.unwrap().0;
        groups.push((kind, issue, &after[..end]));
        rest = after[end + 1..].trim();
    }
    groups
}
