//! Compiles the descriptor sets that proto JSON needs: names and types of every message, nothing else.
//!
//! Envoy's `.proto` files come inside the `envoy-types` package, so that JSON and the prost types cannot
//! drift apart; Istio's are in `proto/istio`. What only a code generator or a validator reads (options,
//! services, source positions) is taken out: it would be most of the memory of a descriptor pool. Works
//! offline.
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor, Value};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Folders of the package's `proto/` that are import roots.
const INCLUDES: [&str; 8] = [
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec",
    "client_model",
    "opentelemetry-proto",
    "ratelimit",
];

/// What a bootstrap names in practice: Istio's template, and the usual static listener and cluster, Istio's filters too. Any other
/// type makes the reader load the full set, so this list is about speed only.
const BOOTSTRAP_ROOTS: [&str; 24] = [
    "alpn.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/config/trace/v3/zipkin.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/transport_sockets/internal_upstream/v3/internal_upstream.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
    "metadata_exchange.proto",
    "peer_metadata.proto",
    "stats.proto",
    "typed_struct.proto",
];

/// The extensions that a listener or route table may bring as a `TypedStruct`, that is, as JSON. Built for one conversion.
const EXTENSION_ROOTS: [&str; 15] = [
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/config/trace/v3/zipkin.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/filters/cel/v3/cel.proto",
    "envoy/extensions/access_loggers/grpc/v3/als.proto",
    "envoy/extensions/access_loggers/open_telemetry/v3/logs_service.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
];

/// What a file of secrets holds. It is read while traffic runs, again and again while it is broken, so no more than this is built.
const SECRETS_ROOTS: [&str; 2] = [
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "envoy/service/discovery/v3/discovery.proto",
];

/// Files whose imports (`cel/expr/checked.proto`) the package does not carry. Istio configures none of them;
/// a dump shows such a message as base64.
const LEFT_OUT: [&str; 1] = ["envoy/extensions/tracers/opentelemetry/samplers/v3/cel_sampler.proto"];

/// Packages that only describe other protos.
const ANNOTATION_PACKAGES: [&str; 4] = [
    "validate",
    "udpa.annotations",
    "xds.annotations",
    "envoy.annotations",
];

fn main() -> Result<()> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let istio = manifest_dir.join("proto/istio");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", istio.display());
    let envoy = envoy_protos(&manifest_dir)?;

    let mut includes: Vec<PathBuf> = INCLUDES.iter().map(|folder| envoy.join(folder)).collect();
    includes.push(istio.clone());
    let mut roots = proto_files(&envoy.join("data-plane-api"))?;
    roots.extend(proto_files(&istio)?);
    roots.retain(|root| !LEFT_OUT.contains(&root.as_str()));

    let mut files = BTreeMap::new();
    let mut sensitive = BTreeSet::new();
    for pool in compile(&includes, roots)? {
        for file in pool.files() {
            let slimmed = || slim(file.file_descriptor_proto().clone());
            files.entry(file.name().to_owned()).or_insert_with(slimmed);
        }
        sensitive.extend(sensitive_fields(&pool));
    }
    if sensitive.is_empty() {
        return Err("no field is marked udpa.annotations.sensitive; secrets would not be redacted".into());
    }

    let everything: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    write_set(
        &out_dir.join("full.binpb.zst"),
        &files,
        &closure(&files, everything)?,
    )?;
    let bootstrap = BOOTSTRAP_ROOTS.into_iter().collect();
    write_set(
        &out_dir.join("bootstrap.binpb.zst"),
        &files,
        &closure(&files, bootstrap)?,
    )?;
    write_set(
        &out_dir.join("extensions.binpb.zst"),
        &files,
        &closure(&files, EXTENSION_ROOTS.into_iter().collect())?,
    )?;
    write_set(
        &out_dir.join("secrets.binpb.zst"),
        &files,
        &closure(&files, SECRETS_ROOTS.into_iter().collect())?,
    )?;
    fs::write(
        out_dir.join("sensitive.txt"),
        Vec::from_iter(sensitive).join("\n"),
    )?;
    Ok(())
}

/// Compiles every root, in as many pools as it takes.
///
/// protoc resolves a relative name among the imports of its file only; protox among all files of the pool, so
/// that `config.core.v3.X` no longer resolves once somebody else has brought in the package
/// `envoy.extensions.config`. What one pool refuses goes first into the next one.
fn compile(includes: &[PathBuf], mut roots: Vec<String>) -> Result<Vec<DescriptorPool>> {
    let mut pools = Vec::new();
    while !roots.is_empty() {
        let mut compiler = protox::Compiler::with_file_resolver(resolver(includes));
        compiler.include_imports(true).include_source_info(false);
        let before = roots.len();
        let mut last_error = None;
        roots.retain(|root| match compiler.open_file(root) {
            Ok(_) => false,
            Err(error) => {
                last_error = Some(format!("{root}: {error}"));
                true
            }
        });
        if let (true, Some(error)) = (roots.len() == before, last_error) {
            return Err(error.into());
        }
        pools.push(compiler.descriptor_pool());
    }
    Ok(pools)
}

fn resolver(includes: &[PathBuf]) -> ChainFileResolver {
    let mut chain = ChainFileResolver::new();
    for include in includes {
        chain.add(Requalified(include.clone()));
        chain.add(IncludeFileResolver::new(include.clone()));
    }
    chain.add(GoogleFileResolver::new());
    chain
}

/// The one file whose own imports bring in both packages that a relative name of it could mean (see
/// [`compile`]): the name is written out.
struct Requalified(PathBuf);

impl FileResolver for Requalified {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        let path = self.0.join(name);
        if name != "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto" || !path.is_file() {
            return Err(protox::Error::file_not_found(name));
        }
        let source = fs::read_to_string(path).map_err(protox::Error::new)?;
        File::from_source(
            name,
            &source.replace(" common.dynamic_", " .envoy.extensions.common.dynamic_"),
        )
    }
}

/// The `proto` folder of the `envoy-types` package that this build resolves to.
fn envoy_protos(manifest_dir: &Path) -> Result<PathBuf> {
    // Only this platform's packages: after `cargo build` (not `cargo fetch`) the others are not on disk.
    let metadata = cargo_metadata::MetadataCommand::new()
        .cargo_path(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .manifest_path(manifest_dir.join("Cargo.toml"))
        .other_options(vec![
            "--offline".to_owned(),
            "--filter-platform".to_owned(),
            env::var("TARGET")?,
        ])
        .exec()?;
    // Another version of the package arrives with another lock file.
    println!(
        "cargo::rerun-if-changed={}",
        metadata.workspace_root.join("Cargo.lock")
    );
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "envoy-types")
        .ok_or("the dependency envoy-types is not in this workspace")?;
    let folder = package.manifest_path.with_file_name("proto");
    if !folder.is_dir() {
        return Err(format!("envoy-types {} carries no proto folder", package.version).into());
    }
    Ok(folder.into_std_path_buf())
}

/// Every `.proto` below `root`, as its import name.
fn proto_files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                let name = path
                    .strip_prefix(root)?
                    .to_str()
                    .ok_or("a proto file name is not UTF-8")?;
                found.push(name.replace('\\', "/"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Without what JSON does not need.
fn slim(mut file: FileDescriptorProto) -> FileDescriptorProto {
    file.source_code_info = None;
    file.options = None;
    file.service.clear();
    file.extension.clear();
    file.message_type.iter_mut().for_each(slim_message);
    file.enum_type.iter_mut().for_each(slim_enum);
    file.dependency.retain(|name| !is_annotation_file(name));
    // Indices into the list that has just become shorter; only a compiler reads them.
    file.public_dependency.clear();
    file.weak_dependency.clear();
    file
}

fn is_annotation_file(name: &str) -> bool {
    let (folder, _) = name.rsplit_once('/').unwrap_or(("", name));
    ANNOTATION_PACKAGES
        .iter()
        .any(|package| folder.replace('/', ".").starts_with(package))
}

fn slim_message(message: &mut DescriptorProto) {
    // `map_entry` is the one option that changes the JSON form.
    message.options = message
        .options
        .take()
        .filter(|options| options.map_entry())
        .map(|_| prost_types::MessageOptions {
            map_entry: Some(true),
            ..Default::default()
        });
    message.extension.clear();
    message.reserved_name.clear();
    message.reserved_range.clear();
    for field in &mut message.field {
        let packed = field.options.as_ref().and_then(|options| options.packed);
        field.options = packed.map(|packed| prost_types::FieldOptions {
            packed: Some(packed),
            ..Default::default()
        });
        field.json_name = None;
    }
    message
        .oneof_decl
        .iter_mut()
        .for_each(|oneof| oneof.options = None);
    message.nested_type.iter_mut().for_each(slim_message);
    message.enum_type.iter_mut().for_each(slim_enum);
}

fn slim_enum(descriptor: &mut EnumDescriptorProto) {
    let allow_alias = descriptor
        .options
        .as_ref()
        .and_then(|options| options.allow_alias);
    descriptor.options = allow_alias.map(|alias| prost_types::EnumOptions {
        allow_alias: Some(alias),
        ..Default::default()
    });
    descriptor.value.iter_mut().for_each(|value| value.options = None);
    descriptor.reserved_name.clear();
    descriptor.reserved_range.clear();
}

/// `roots` and everything they import, dependencies first.
fn closure<'a>(
    files: &'a BTreeMap<String, FileDescriptorProto>,
    roots: BTreeSet<&'a str>,
) -> Result<Vec<&'a str>> {
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    // (file, its dependencies are done)
    let mut stack: Vec<(&str, bool)> = roots.into_iter().rev().map(|root| (root, false)).collect();
    while let Some((name, complete)) = stack.pop() {
        if complete {
            ordered.push(name);
            continue;
        }
        if is_annotation_file(name) || !seen.insert(name) {
            continue;
        }
        let file = files
            .get(name)
            .ok_or_else(|| format!("{name} is imported but was not compiled"))?;
        stack.push((name, true));
        stack.extend(
            file.dependency
                .iter()
                .map(|dependency| (dependency.as_str(), false)),
        );
    }
    Ok(ordered)
}

fn write_set(path: &Path, files: &BTreeMap<String, FileDescriptorProto>, names: &[&str]) -> Result<()> {
    let file = names
        .iter()
        .filter_map(|name| files.get(*name).cloned())
        .collect();
    let bytes = FileDescriptorSet { file }.encode_to_vec();
    fs::write(path, zstd::encode_all(bytes.as_slice(), 19)?)?;
    Ok(())
}

/// Full names of the fields that Envoy's protos mark as secret.
fn sensitive_fields(pool: &DescriptorPool) -> Vec<String> {
    let Some(annotation) = pool.get_extension_by_name("udpa.annotations.sensitive") else {
        return Vec::new();
    };
    let marked = |message: MessageDescriptor| {
        let fields: Vec<_> = message.fields().collect();
        fields
            .into_iter()
            .filter(|field| {
                matches!(
                    field.options().get_extension(&annotation).as_ref(),
                    Value::Bool(true)
                )
            })
            .map(|field| field.full_name().to_owned())
            .collect::<Vec<_>>()
    };
    pool.all_messages().flat_map(marked).collect()
}
