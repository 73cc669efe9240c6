//! `/config_dump`: the sections, rendered one resource after the other from the bytes that were received.
//!
//! Sources: envoy/admin/v3/config_dump.proto and config_dump_shared.proto; Envoy `config_dump_handler.cc` for
//! what the queries mean.
use std::time::SystemTime;

use prost::bytes::Bytes;
use regex::Regex;

use super::descriptors::{Descriptors, DescriptorsError};
use super::mask::Mask;
use super::number;
use super::print::{Defaults, Place, Printer};

mod scopes;
mod section;
mod within;

pub use scopes::DumpScopes;
use section::{Element, SECTIONS, Section, Shape};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// What the process runs with, as received. What is inside something else (static resources, inline route tables) is not in it.
#[derive(Debug, Clone)]
pub struct ConfigDump {
    /// Encoded `envoy.config.bootstrap.v3.Bootstrap`.
    pub bootstrap: Bytes,
    /// When the bootstrap was read.
    pub bootstrap_updated: SystemTime,
    /// `envoy.config.cluster.v3.Cluster`.
    pub clusters: DumpSection,
    /// `envoy.config.listener.v3.Listener`.
    pub listeners: DumpSection,
    /// `envoy.config.route.v3.RouteConfiguration`, from RDS.
    pub routes: DumpSection,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`; rendered with [`DumpOptions::include_eds`] only.
    pub endpoints: DumpSection,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`; private keys may be in it, they are redacted.
    pub secrets: DumpSection,
    /// `envoy.config.core.v3.TypedExtensionConfig`, of HTTP filters; `None`: none is discovered, and there is no such section.
    pub filters: Option<DumpSection>,
    /// Discovered scopes of routes.
    pub scopes: Vec<DumpScopes>,
}

/// The resources of one type.
#[derive(Debug, Clone, Default)]
pub struct DumpSection {
    /// Last accepted version of the type; empty for none, and for types that print none.
    pub version_info: String,
    /// In the order to print.
    pub resources: Vec<DumpResource>,
}

/// One resource as received.
#[derive(Debug, Clone)]
pub struct DumpResource {
    /// Version of the resource; may be empty.
    pub version: String,
    /// Resource name.
    pub name: String,
    /// Encoded message of the section's type, without the `Any` around it.
    pub bytes: Bytes,
    /// When it was accepted, or refused.
    pub last_updated: SystemTime,
    /// Where it stands.
    pub state: DumpState,
}

/// Where a resource stands. A refused update stands beside the good one of the same name: one entry shows
/// both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpState {
    /// From the bootstrap, or inline in another resource.
    Static,
    /// In use.
    Active,
    /// Accepted, waits for what it refers to.
    Warming,
    /// Refused; `error` says why.
    Rejected {
        /// What the NACK said.
        error: String,
    },
}

/// The query of `/config_dump`.
#[derive(Debug, Clone, Default)]
pub struct DumpOptions {
    /// `include_eds`.
    pub include_eds: bool,
    /// `resource`: only the elements of this repeated field, each as an entry of `configs`.
    pub resource: Option<String>,
    /// `mask`: field paths, split at the commas.
    pub mask: Option<Vec<String>>,
    /// `name_regex`: only resources whose whole name matches.
    pub name_regex: Option<String>,
}

/// Why a query has no answer. The texts are Envoy's, users search for them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RenderError {
    /// No section has the field; HTTP 404.
    #[error("{0} not found in config dump")]
    UnknownResource(String),
    /// The field is not a list; HTTP 400.
    #[error("{0} is not a repeated field. Use ?mask={0} to get only this field")]
    NotRepeated(String),
    /// No section has all the paths; HTTP 400.
    #[error("FieldMask {0} could not be successfully applied to any configs.")]
    MaskFitsNothing(String),
    /// The elements asked for do not have all the paths; HTTP 400. Envoy puts protobuf's debug text there, which changes with every build.
    #[error("FieldMask {0} could not be successfully used.")]
    MaskUnusable(String),
    /// Not a regular expression; HTTP 400.
    #[error("INVALID_ARGUMENT: Error while parsing name_regex from {pattern}: {reason}: {pattern}")]
    Regex {
        /// As given.
        pattern: String,
        /// As RE2 says it.
        reason: String,
    },
}

impl RenderError {
    /// The HTTP status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnknownResource(_) => 404,
            Self::NotRepeated(_) | Self::MaskFitsNothing(_) | Self::MaskUnusable(_) | Self::Regex { .. } => {
                400
            }
        }
    }
}

/// The query, understood.
struct Query<'q> {
    mask: Mask,
    mask_text: Option<String>,
    resource: Option<&'q str>,
    names: Option<Regex>,
}

/// Pieces are at least so long.
const PIECE_BYTES: usize = 64 << 10;

/// Where pieces go.
struct Output<'t> {
    take: &'t mut dyn FnMut(String) -> bool,
    is_wanted: bool,
}

impl Output<'_> {
    /// Hands over what is there if it is enough; false: nobody wants more.
    fn goes_on(&mut self, printer: &mut Printer<'_>) -> bool {
        if self.is_wanted
            && let Some(piece) = printer.json.take(PIECE_BYTES)
        {
            self.is_wanted = (self.take)(piece);
        }
        self.is_wanted
    }
}

impl ConfigDump {
    /// The descriptors that [`Self::render`] needs for this dump, and no more. Cost: megabytes and milliseconds; drop them with the answer.
    ///
    /// # Errors
    /// Only for a broken build.
    pub fn descriptors(&self) -> Result<Descriptors, DescriptorsError> {
        let sections = [
            &self.clusters,
            &self.listeners,
            &self.routes,
            &self.endpoints,
            &self.secrets,
        ];
        let sections = sections.into_iter().chain(&self.filters);
        let resources = sections.flat_map(|section| &section.resources);
        let resources = resources.chain(self.scopes.iter().flat_map(|set| &set.scopes));
        let contents = resources.map(|resource| resource.bytes.as_ref());
        let types: Vec<_> = SECTIONS.iter().map(|section| section.resource_type).collect();
        let dumps = [
            "envoy.admin.v3.BootstrapConfigDump",
            "envoy.admin.v3.ClustersConfigDump",
        ];
        let contents = contents.chain(std::iter::once(self.bootstrap.as_ref()));
        Descriptors::of(&[types.as_slice(), &dumps].concat(), contents)
    }

    /// `{"configs": […]}`, as Envoy prints it. Cost: decodes every resource once; run it off the workers.
    ///
    /// # Errors
    /// For queries that Envoy refuses too.
    pub fn render(&self, descriptors: &Descriptors, options: &DumpOptions) -> Result<String, RenderError> {
        let mut text = String::new();
        let mut take = |piece: String| {
            text.push_str(&piece);
            true
        };
        let rest = self.render_to(descriptors, options, &mut take)?;
        Ok(text + &rest)
    }

    /// As [`Self::render`], in pieces: a mesh of a thousand services makes forty megabytes. `take` has all but the last of them, and says
    /// whether there is still somebody who wants them. Nothing was taken when this fails.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_to(
        &self,
        descriptors: &Descriptors,
        options: &DumpOptions,
        take: &mut dyn FnMut(String) -> bool,
    ) -> Result<String, RenderError> {
        let query = Query::new(options)?;
        let mut output = Output {
            take,
            is_wanted: true,
        };
        let output = &mut output;
        let dump = self.completed(options.include_eds);
        let mut printer = Printer::new(descriptors, Defaults::Omit);
        printer.json.begin_object();
        match query.resource {
            None => dump.sections(&mut printer, &query, output, options.include_eds)?,
            Some(field) => dump.elements(&mut printer, &query, output, field, options.include_eds)?,
        }
        printer.json.end_object();
        Ok(printer.json.finish())
    }

    /// Every section that has all the masked paths.
    fn sections(
        &self,
        printer: &mut Printer<'_>,
        query: &Query<'_>,
        output: &mut Output<'_>,
        include_eds: bool,
    ) -> Result<(), RenderError> {
        let mut printed = 0;
        printer.json.key("configs");
        printer.json.begin_array();
        for section in self.wanted(include_eds) {
            let descriptor = printer
                .descriptors
                .message(&format!("envoy.admin.v3.{}", section.message));
            // The descriptors of this very build have them all.
            let Some(descriptor) = descriptor else { continue };
            if !query.mask.fits(&descriptor) {
                continue;
            }
            printed += 1;
            printer.json.element();
            printer.json.begin_object();
            printer
                .json
                .member("@type", &format!("{ADMIN}{}", section.message));
            self.section(printer, query, output, section);
            printer.json.end_object();
        }
        printer.json.end_array();
        match &query.mask_text {
            Some(mask) if printed == 0 => Err(RenderError::MaskFitsNothing(mask.clone())),
            _ => Ok(()),
        }
    }

    fn section(
        &self,
        printer: &mut Printer<'_>,
        query: &Query<'_>,
        output: &mut Output<'_>,
        section: &Section,
    ) {
        let Some(resources) = self.resources(section) else {
            match section.shape {
                Shape::Bootstrap => self.bootstrap(printer, &query.mask),
                Shape::Scopes => self.scopes_section(printer, query, output, section),
                _ => {}
            }
            return;
        };
        if section.prints_version
            && !resources.version_info.is_empty()
            && query.mask.child("version_info").is_some()
        {
            printer.json.member("version_info", &resources.version_info);
        }
        for list in section.lists {
            let elements = query.elements(section, list.kind, &resources.resources);
            if elements.is_empty() || query.mask.child(list.field).is_none() {
                continue;
            }
            printer.json.key(list.field);
            printer.json.begin_array();
            for element in elements {
                printer.json.element();
                printer.json.begin_object();
                section.element(printer, &element, &Mask::All);
                printer.json.end_object();
                if !output.goes_on(printer) {
                    break;
                }
            }
            printer.json.end_array();
        }
    }

    /// Elements of one repeated field as entries of their own; without any, the answer has no `configs`.
    fn elements(
        &self,
        printer: &mut Printer<'_>,
        query: &Query<'_>,
        output: &mut Output<'_>,
        field: &str,
        include_eds: bool,
    ) -> Result<(), RenderError> {
        for section in self.wanted(include_eds) {
            let Some(list) = section.lists.iter().find(|list| list.field == field) else {
                let descriptor = printer
                    .descriptors
                    .message(&format!("envoy.admin.v3.{}", section.message));
                if descriptor.is_some_and(|descriptor| descriptor.get_field_by_name(field).is_some()) {
                    return Err(RenderError::NotRepeated(field.to_owned()));
                }
                continue;
            };
            let resources = self
                .resources(section)
                .map(|section| section.resources.as_slice())
                .unwrap_or_default();
            let elements = query.elements(section, list.kind, resources);
            if elements.is_empty() && (section.shape != Shape::Scopes || self.sets(list.kind).is_empty()) {
                return Ok(());
            }
            let message = format!("{}.{}", section.message, list.message);
            // No path leads into the list of a set.
            let is_inside = section.shape == Shape::Scopes
                && !matches!(query.mask.child(section.payload), None | Some(Mask::All));
            if is_inside || !query.fits_element(printer.descriptors, &message, section) {
                return Err(RenderError::MaskUnusable(query.mask.to_string()));
            }
            printer.json.key("configs");
            printer.json.begin_array();
            if section.shape == Shape::Scopes {
                self.scopes_elements(printer, query, section, list);
            }
            for element in &elements {
                printer.json.element();
                printer.json.begin_object();
                printer.json.member("@type", &format!("{ADMIN}{message}"));
                section.element(printer, element, &query.mask);
                printer.json.end_object();
                if !output.goes_on(printer) {
                    break;
                }
            }
            printer.json.end_array();
            return Ok(());
        }
        Err(RenderError::UnknownResource(field.to_owned()))
    }

    fn bootstrap(&self, printer: &mut Printer<'_>, mask: &Mask) {
        if let Some(mask) = mask.child("bootstrap") {
            let bytes = self.bootstrap.as_ref();
            printer.json.key("bootstrap");
            match printer
                .descriptors
                .decode_any("envoy.config.bootstrap.v3.Bootstrap", bytes)
            {
                Some(message) => printer.message(&message, Place { mask, ..Place::TOP }),
                // Encoded by this process, so it cannot happen; an empty object keeps the rest of the answer
                // readable.
                None => printer.json.raw("{}"),
            }
        }
        if mask.child("last_updated").is_some() {
            printer
                .json
                .member("last_updated", &number::system_time(self.bootstrap_updated));
        }
    }

    fn resources(&self, section: &Section) -> Option<&DumpSection> {
        match section.shape {
            Shape::Bootstrap | Shape::Scopes => None,
            Shape::Clusters => Some(&self.clusters),
            Shape::Endpoints => Some(&self.endpoints),
            Shape::Listeners => Some(&self.listeners),
            Shape::Routes => Some(&self.routes),
            Shape::Secrets => Some(&self.secrets),
            Shape::Filters => self.filters.as_ref(),
        }
    }

    fn wanted(&self, include_eds: bool) -> impl Iterator<Item = &'static Section> {
        let has_filters = self.filters.is_some();
        SECTIONS.iter().filter(move |section| match section.shape {
            Shape::Endpoints => include_eds,
            Shape::Filters => has_filters,
            _ => true,
        })
    }
}

impl<'q> Query<'q> {
    fn new(options: &'q DumpOptions) -> Result<Self, RenderError> {
        let paths = options.mask.iter().flatten().map(String::as_str);
        let names = options
            .name_regex
            .as_deref()
            .filter(|pattern| !pattern.is_empty());
        let names = names.map(|pattern| {
            Regex::new(&format!("^(?:{pattern})$")).map_err(|error| RenderError::Regex {
                pattern: pattern.to_owned(),
                reason: as_re2(&error),
            })
        });
        Ok(Self {
            mask: Mask::parse(paths),
            mask_text: options.mask.as_ref().map(|paths| paths.join(",")),
            resource: options.resource.as_deref(),
            names: names.transpose()?,
        })
    }

    fn fits_element(&self, descriptors: &Descriptors, message: &str, section: &Section) -> bool {
        let message = descriptors.message(&format!("envoy.admin.v3.{message}"));
        let resource = descriptors.message(section.resource_type);
        // The descriptors of this very build have them all.
        let Some((message, resource)) = message.zip(resource) else {
            return false;
        };
        self.mask.fits_element(&message, &resource)
    }

    fn asks_for(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name))
    }

    fn elements<'r>(
        &self,
        section: &Section,
        kind: section::ListKind,
        resources: &'r [DumpResource],
    ) -> Vec<Element<'r>> {
        let asked = |resource: &&DumpResource| self.asks_for(&resource.name);
        section.elements_of(kind, resources.iter().filter(asked))
    }
}

/// The last line says what is wrong; in the words that users of Envoy search for, where it has some.
fn as_re2(error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default();
    match reason.trim_start_matches("error: ") {
        "unclosed group" => "missing )",
        "unopened group" => "unexpected )",
        "unclosed character class" => "missing ]",
        "repetition operator missing expression" => "no argument for repetition operator",
        other => other,
    }
    .to_owned()
}
