//! `outrigger validate`: is this configuration right, before a proxy sees it?
//!
//! Owns the checks over whole files: what each file is, what the model says of every resource in it, and whether the resources of all
//! files fit together. Pure: bytes in, [`Report`] out; files are opened and findings printed by the command line.
//! What makes a resource invalid is the model's matter ([`crate::decode`]); only what concerns several resources, or several routes or
//! filter chains of one, is judged here. Start at [`validate`].
mod binary;
mod chains;
mod finding;
mod input;
mod meaning;
mod names;
mod prune;
mod references;
mod resource;
mod routes;
mod walk;

pub use finding::{Finding, Place, Rule, Severity};
pub use resource::Kind;

use prost_reflect::{DynamicMessage, ReflectMessage as _};

use crate::document::Untyped;
use crate::dump::Descriptors;
use finding::Findings;
use resource::{Resource, Resources};
use walk::At;

/// One file.
#[derive(Debug, Clone)]
pub struct Input {
    /// For the complaints, and its extension for the format; `-` for a stream without a name.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What is to be said of all files together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// By file; in each by line where there are lines, notes last.
    pub findings: Vec<Finding>,
    /// Resources that were looked at, by kind, in the order of [`Kind`]; kinds without any are not in it.
    pub resources: Vec<(Kind, usize)>,
}

impl Report {
    /// How many findings are of that severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

/// Checks all files as one configuration: what one names, another may hold.
///
/// Cost: a message tree and, of text, a second tree with places, of everything; seconds and a gigabyte for the largest mesh.
pub fn validate(descriptors: &Descriptors, inputs: &[Input]) -> Report {
    let mut findings = Findings::default();
    let mut resources = Resources::default();
    let mut texts: Vec<Option<Untyped>> = Vec::with_capacity(inputs.len());
    for (file, input) in inputs.iter().enumerate() {
        let contents = input::read(descriptors, input);
        findings.faults(file, contents.faults);
        resources.add(descriptors, file, &contents.messages, &mut findings);
        texts.push(contents.text);
    }
    findings.taint(&mut resources);
    meaning::check(descriptors, &resources, &mut findings);
    names::check(&resources, &mut findings);
    references::check(descriptors, &resources, &mut findings);
    for resource in resources.current() {
        walk::walk(descriptors, &resource.message, &mut |message, at| {
            if resource.kind == Kind::Bootstrap && at.path == resource::STATIC_RESOURCES {
                return walk::Go::Past;
            }
            unknown_fields(message, at, resource, &mut findings);
            chains::check(message, at, resource, &mut findings);
            routes::check(message, at, resource, &mut findings);
            walk::Go::Inside
        });
    }
    Report {
        findings: findings.finish(&texts),
        resources: resources.counts(),
    }
}

/// Fields of a binary message that the protos of this program do not have.
fn unknown_fields(message: &DynamicMessage, at: &At<'_>, resource: &Resource, findings: &mut Findings) {
    for field in message.unknown_fields() {
        let descriptor = message.descriptor();
        let reason = format!(
            "{} has no field of the number {}",
            descriptor.full_name(),
            field.number()
        );
        findings.add(Rule::Unknown, resource, at.path, reason, None);
    }
}

#[cfg(test)]
mod tests;
