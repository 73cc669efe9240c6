//! What is found, and where.
use crate::document::Untyped;

use super::input::Fault;
use super::resource::{Resource, Resources};

/// How bad it is. Only errors make a configuration invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Refused when it is loaded, or traffic is lost because of it.
    Error,
    /// It loads, and does something else than it says.
    Warning,
    /// Worth knowing, often meant.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Which check it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Neither text nor protobuf.
    Unreadable,
    /// Not YAML or not JSON.
    Syntax,
    /// A field that does not exist or does not take this value.
    Field,
    /// The model refuses the resource.
    Rejected,
    /// The field has no effect here.
    Unsupported,
    /// Something in a binary message that this program's protos do not have.
    Unknown,
    /// Two resources, or two virtual hosts' domains, have one name.
    DuplicateName,
    /// A cluster that is not there.
    MissingCluster,
    /// A route table that is not there.
    MissingRoutes,
    /// An EDS cluster without endpoints, or endpoints without a cluster.
    MissingEndpoints,
    /// A secret that is not there.
    MissingSecret,
    /// A secret that nothing names.
    UnusedSecret,
    /// A cluster that nothing names.
    UnusedCluster,
    /// A route table that nothing names.
    UnusedRoutes,
    /// A filter chain that no connection can reach.
    ShadowedChain,
    /// A route that no request can reach.
    ShadowedRoute,
    /// A check that could not be made with the files at hand.
    NotChecked,
}

impl Rule {
    /// Every rule, in the order of [`Rule::index`].
    pub const ALL: [Self; 17] = [
        Self::Unreadable,
        Self::Syntax,
        Self::Field,
        Self::Rejected,
        Self::Unsupported,
        Self::Unknown,
        Self::DuplicateName,
        Self::MissingCluster,
        Self::MissingRoutes,
        Self::MissingEndpoints,
        Self::MissingSecret,
        Self::UnusedSecret,
        Self::UnusedCluster,
        Self::UnusedRoutes,
        Self::ShadowedChain,
        Self::ShadowedRoute,
        Self::NotChecked,
    ];

    /// Its name in every format.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// One sentence for lists of rules.
    pub fn description(self) -> &'static str {
        self.row().2
    }

    /// How bad it is, usually.
    pub fn severity(self) -> Severity {
        self.row().1
    }

    /// Its place in [`Rule::ALL`].
    pub fn index(self) -> usize {
        Self::ALL
            .iter()
            .position(|rule| *rule == self)
            .unwrap_or_default()
    }

    fn row(self) -> (&'static str, Severity, &'static str) {
        use Severity::{Error, Note, Warning};
        match self {
            Self::Unreadable => (
                "unreadable",
                Error,
                "The file is neither text nor a known protobuf message.",
            ),
            Self::Syntax => ("syntax", Error, "The text is not YAML or not JSON."),
            Self::Field => (
                "field",
                Error,
                "The field does not exist, or does not take this value.",
            ),
            Self::Rejected => (
                "rejected",
                Error,
                "The proxy refuses the resource: a NACK, or the end at start.",
            ),
            Self::Unsupported => (
                "unsupported",
                Warning,
                "The field is accepted and has no effect here.",
            ),
            Self::Unknown => (
                "unknown",
                Warning,
                "Written by a newer version; it cannot be checked and has no effect here.",
            ),
            Self::DuplicateName => ("duplicate-name", Error, "Two of a kind have one name."),
            Self::MissingCluster => (
                "missing-cluster",
                Error,
                "A cluster is named that does not exist; its requests fail with 503, its connections close.",
            ),
            Self::MissingRoutes => (
                "missing-routes",
                Error,
                "A route table is named that does not exist; the listener waits for it.",
            ),
            Self::MissingEndpoints => (
                "missing-endpoints",
                Warning,
                "A cluster that gets its endpoints over EDS gets none, or endpoints belong to no cluster.",
            ),
            Self::MissingSecret => (
                "missing-secret",
                Error,
                "A secret is named that does not exist; what needs it waits.",
            ),
            Self::UnusedSecret => ("unused-secret", Warning, "No TLS context names this secret."),
            Self::UnusedCluster => (
                "unused-cluster",
                Note,
                "No route, filter or other resource names this cluster.",
            ),
            Self::UnusedRoutes => ("unused-routes", Warning, "No listener names this route table."),
            Self::ShadowedChain => (
                "shadowed-chain",
                Warning,
                "No connection can reach this filter chain.",
            ),
            Self::ShadowedRoute => (
                "shadowed-route",
                Warning,
                "An earlier route takes every request that this one matches.",
            ),
            Self::NotChecked => (
                "not-checked",
                Note,
                "The files at hand do not say; give the missing one too.",
            ),
        }
    }
}

/// From 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub rule: Rule,
    /// That of the rule, unless the configuration says that it is meant so.
    pub severity: Severity,
    /// Index of the input.
    pub file: usize,
    /// `None` where the file is binary.
    pub place: Option<Place>,
    /// `cluster "a"`; empty where the file as such is meant.
    pub resource: String,
    /// In the resource, or in the file if `resource` is empty; empty when the whole is meant.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// The valid name that was probably meant.
    pub did_you_mean: Option<String>,
}

/// Findings under way.
#[derive(Default)]
pub(super) struct Findings {
    found: Vec<Pending>,
}

struct Pending {
    finding: Finding,
    /// From the top of the file, for the place.
    file_path: String,
}

impl Findings {
    /// What reading a file has found.
    pub(super) fn faults(&mut self, file: usize, faults: Vec<Fault>) {
        for fault in faults {
            let Fault {
                rule,
                place,
                path,
                reason,
                did_you_mean,
            } = fault;
            self.found.push(Pending {
                file_path: path.clone(),
                finding: Finding {
                    rule,
                    severity: rule.severity(),
                    file,
                    place,
                    resource: String::new(),
                    path,
                    reason,
                    did_you_mean,
                },
            });
        }
    }

    /// A complaint about what stands at `path` of the resource.
    pub(super) fn add(
        &mut self,
        rule: Rule,
        resource: &Resource,
        path: &str,
        reason: impl Into<String>,
        did_you_mean: Option<String>,
    ) {
        self.add_as(rule.severity(), rule, resource, path, reason, did_you_mean);
    }

    /// As [`Self::add`], of another severity.
    pub(super) fn add_as(
        &mut self,
        severity: Severity,
        rule: Rule,
        resource: &Resource,
        path: &str,
        reason: impl Into<String>,
        did_you_mean: Option<String>,
    ) {
        self.found.push(Pending {
            file_path: join(&resource.path, path),
            finding: Finding {
                rule,
                severity,
                file: resource.file,
                place: None,
                resource: resource.label(),
                path: path.to_owned(),
                reason: reason.into(),
                did_you_mean,
            },
        });
    }

    /// A complaint about the file itself.
    pub(super) fn add_to_file(&mut self, rule: Rule, file: usize, path: &str, reason: impl Into<String>) {
        let fault = Fault {
            rule,
            place: None,
            path: path.to_owned(),
            reason: reason.into(),
            did_you_mean: None,
        };
        self.faults(file, vec![fault]);
    }

    /// Something was found in the file.
    pub(super) fn has_of_file(&self, file: usize) -> bool {
        self.found.iter().any(|pending| pending.finding.file == file)
    }

    /// Marks the resources that a fault was found in while they were read: what is left of them would be judged wrongly. The fault
    /// then is one of the resource.
    pub(super) fn taint(&mut self, resources: &mut Resources) {
        for pending in &mut self.found {
            let fault = canonical(&pending.file_path);
            let inside = |resource: &&mut Resource| {
                resource.file == pending.finding.file && within(&resource.path, &fault).is_some()
            };
            // The innermost: a bootstrap has clusters in it.
            let innermost = resources
                .all
                .iter_mut()
                .filter(inside)
                .max_by_key(|resource| resource.path.len());
            if let Some(resource) = innermost {
                resource.tainted = true;
                pending.finding.resource = resource.label();
                within(&resource.path, &fault)
                    .unwrap_or_default()
                    .clone_into(&mut pending.finding.path);
            }
        }
    }

    /// With places, in order: notes last.
    pub(super) fn finish(self, texts: &[Option<Untyped>]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .found
            .into_iter()
            .map(|pending| placed(pending, texts))
            .collect();
        findings.sort_by_key(|finding| (finding.file, finding.severity == Severity::Note, finding.place));
        findings.dedup();
        findings
    }
}

fn placed(pending: Pending, texts: &[Option<Untyped>]) -> Finding {
    let Pending {
        mut finding,
        file_path,
    } = pending;
    // What is said of a whole file is said of none of its lines.
    let is_of_file = finding.resource.is_empty() && file_path.is_empty();
    if let (None, false, Some(Some(text))) = (finding.place, is_of_file, texts.get(finding.file)) {
        let (line, column) = text.place(&file_path);
        finding.place = Some(Place { line, column });
    }
    finding
}

/// `path` after `outer`, if it is inside.
fn within<'p>(outer: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(outer)?;
    if outer.is_empty() || rest.is_empty() || rest.starts_with('[') {
        return Some(rest);
    }
    rest.strip_prefix('.')
}

/// One path after another.
pub(super) fn join(outer: &str, inner: &str) -> String {
    let dot = if outer.is_empty() || inner.is_empty() || inner.starts_with('[') {
        ""
    } else {
        "."
    };
    format!("{outer}{dot}{inner}")
}

/// Field names as in the protos: a document may write them in camelCase. Keys of maps, in quotes, stay.
fn canonical(path: &str) -> String {
    let mut canonical = String::with_capacity(path.len() + 8);
    let mut quoted = false;
    for letter in path.chars() {
        quoted ^= letter == '"';
        if letter.is_ascii_uppercase() && !quoted {
            canonical.push('_');
            canonical.push(letter.to_ascii_lowercase());
        } else {
            canonical.push(letter);
        }
    }
    canonical
}
