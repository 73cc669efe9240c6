//! The section of scoped routes: sets of scopes, which no other section has.
//!
//! Source: envoy/admin/v3/config_dump.proto `ScopedRoutesConfigDump`; what Envoy 1.40 answered: `name_regex` is for the scopes in a set.
use std::time::SystemTime;

use super::section::{List, ListKind, Section};
use super::{ConfigDump, DumpResource, Output, Query};
use crate::dump::mask::Mask;
use crate::dump::number;
use crate::dump::print::{Place, Printer};

/// Scopes that belong together.
#[derive(Debug, Clone)]
pub struct DumpScopes {
    /// What the connection manager calls them.
    pub name: String,
    /// Of the last response; empty for those of a listener.
    pub version: String,
    /// When they came last.
    pub last_updated: SystemTime,
    /// Written in a listener.
    pub is_inline: bool,
    /// `envoy.config.route.v3.ScopedRouteConfiguration`, in the order to print.
    pub scopes: Vec<DumpResource>,
}

impl ConfigDump {
    pub(super) fn sets(&self, kind: ListKind) -> Vec<&DumpScopes> {
        let is_inline = kind == ListKind::Static;
        let sets = self.scopes.iter();
        sets.filter(|set| set.is_inline == is_inline).collect()
    }

    /// The lists of the section, into an open object.
    pub(super) fn scopes_section(
        &self,
        printer: &mut Printer<'_>,
        query: &Query<'_>,
        output: &mut Output<'_>,
        section: &Section,
    ) {
        for list in section.lists {
            let sets = self.sets(list.kind);
            if sets.is_empty() || query.mask.child(list.field).is_none() {
                continue;
            }
            printer.json.key(list.field);
            printer.json.begin_array();
            for set in sets {
                printer.json.element();
                printer.json.begin_object();
                set.print(printer, query, section, &Mask::All);
                printer.json.end_object();
                if !output.goes_on(printer) {
                    break;
                }
            }
            printer.json.end_array();
        }
    }

    /// Sets as entries of their own, into an open list.
    pub(super) fn scopes_elements(
        &self,
        printer: &mut Printer<'_>,
        query: &Query<'_>,
        section: &Section,
        list: &List,
    ) {
        for set in self.sets(list.kind) {
            printer.json.element();
            printer.json.begin_object();
            let message = format!("{}{}.{}", super::ADMIN, section.message, list.message);
            printer.json.member("@type", &message);
            set.print(printer, query, section, &query.mask);
            printer.json.end_object();
        }
    }
}

impl DumpScopes {
    fn print(&self, printer: &mut Printer<'_>, query: &Query<'_>, section: &Section, mask: &Mask) {
        for (field, value) in [("name", &self.name), ("version_info", &self.version)] {
            if !value.is_empty() && mask.child(field).is_some() {
                printer.json.member(field, value);
            }
        }
        let named = self.scopes.iter().filter(|scope| query.asks_for(&scope.name));
        let scopes: Vec<_> = named.collect();
        if let Some(mask) = mask.child(section.payload).filter(|_| !scopes.is_empty()) {
            let type_url = format!("type.googleapis.com/{}", section.resource_type);
            printer.json.key(section.payload);
            printer.json.begin_array();
            for scope in scopes {
                printer.json.element();
                printer.any(&type_url, &scope.bytes, Place { mask, ..Place::TOP });
            }
            printer.json.end_array();
        }
        if mask.child("last_updated").is_some() {
            let date = number::system_time(self.last_updated);
            printer.json.member("last_updated", &date);
        }
    }
}
