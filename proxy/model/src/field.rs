//! Where a field is in a resource, what is said about it, and the verdict macros.
//!
//! Every protobuf struct is destructured by the macro `verdicts!` without `..`, so a field that a newer Envoy adds breaks the build until it
//! has a verdict. `docs/compat.md` is made from these macro calls by `src/tests/compat.rs`. Knows no message by name.
use std::cell::RefCell;
use std::fmt;

/// A field that is set, has no behaviour here, and whose absence admits nothing that was not asked for. Accepted, counted, listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// `filter_chains[2].filters[0].typed_config.stat_prefix`.
    pub path: String,
    /// What is not done.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Why a resource is refused: the text of a NACK, or of an exit with status 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `listener "virtualInbound"`.
    pub resource: String,
    /// Field path inside the resource; empty when the whole of it is meant.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// The nearest valid name.
    pub did_you_mean: Option<String>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.resource)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        match &self.did_you_mean {
            Some(name) => write!(f, "; did you mean {name:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

/// A value and what its configuration asked for in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted<T> {
    /// The value.
    pub value: T,
    /// Fields that have no behaviour here, in the order of the conversion.
    pub problems: Vec<Problem>,
}

/// Problems kept of one resource; a resource with more is one that nobody reads to the end.
const MAX_PROBLEMS: usize = 1000;

/// What a whole conversion shares: the resource's name and its problems.
pub(crate) struct Context {
    resource: String,
    problems: RefCell<Vec<Problem>>,
}

impl Context {
    /// `kind` is `listener`, `cluster`, …
    pub(crate) fn new(kind: &str, name: &str) -> Self {
        Self {
            resource: format!("{kind} {name:?}"),
            problems: RefCell::new(Vec::new()),
        }
    }

    /// The path of the resource itself.
    pub(crate) fn root(&self) -> FieldPath<'_> {
        FieldPath {
            context: self,
            parent: None,
            name: "",
            place: Place::Whole,
        }
    }

    /// Ends the conversion.
    pub(crate) fn finish<T>(self, value: T) -> Converted<T> {
        Converted {
            value,
            problems: self.problems.into_inner(),
        }
    }
}

/// A field's place in a resource, as a chain on the stack: making one allocates nothing.
#[derive(Clone, Copy)]
pub(crate) struct FieldPath<'a> {
    context: &'a Context,
    parent: Option<&'a FieldPath<'a>>,
    name: &'a str,
    place: Place<'a>,
}

/// Which part of a field.
#[derive(Clone, Copy)]
enum Place<'a> {
    Whole,
    Index(usize),
    Key(&'a str),
}

impl<'a> FieldPath<'a> {
    /// A field of the message at this path.
    pub(crate) fn field<'b>(&'b self, name: &'b str) -> FieldPath<'b> {
        FieldPath {
            context: self.context,
            parent: Some(self),
            name,
            place: Place::Whole,
        }
    }

    /// One item of this repeated field.
    pub(crate) fn index(self, index: usize) -> Self {
        Self {
            place: Place::Index(index),
            ..self
        }
    }

    /// One entry of this map.
    pub(crate) fn key(self, key: &'a str) -> Self {
        Self {
            place: Place::Key(key),
            ..self
        }
    }

    /// Refuses the resource because of this field.
    pub(crate) fn reject(&self, reason: impl Into<String>) -> Rejection {
        Rejection {
            resource: shortened(self.context.resource.clone()),
            path: shortened(self.to_string()),
            reason: shortened(reason.into()),
            did_you_mean: None,
        }
    }

    /// Refuses the resource because `name` is none of `valid`.
    pub(crate) fn reject_name<'n>(
        &self,
        reason: impl Into<String>,
        name: &str,
        valid: impl IntoIterator<Item = &'n str>,
    ) -> Rejection {
        Rejection {
            did_you_mean: nearest(name, valid).map(str::to_owned),
            ..self.reject(reason)
        }
    }

    /// Lists this field as one without behaviour.
    pub(crate) fn problem(&self, reason: impl Into<String>) {
        let mut problems = self.context.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(Problem {
                path: shortened(self.to_string()),
                reason: shortened(reason.into()),
            });
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.write(f)?;
        if parent.parent.is_some() {
            f.write_str(".")?;
        }
        f.write_str(self.name)?;
        match self.place {
            Place::Whole => Ok(()),
            Place::Index(index) => write!(f, "[{index}]"),
            Place::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// Texts quote what was received, and a control plane may send a megabyte where a name should stand.
const MAX_TEXT_BYTES: usize = 4096;

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
    text
}

/// Whether a protobuf field differs from what it is when nobody writes it.
pub(crate) trait IsSet {
    /// True if somebody wrote it.
    fn is_set(&self) -> bool;
}

impl<T> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}
impl<T> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}
impl<K, V> IsSet for std::collections::HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}
impl IsSet for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}
macro_rules! is_set_unless_default {
    ($($number:ty)*) => { $(impl IsSet for $number {
        fn is_set(&self) -> bool {
            *self != <$number>::default()
        }
    })* };
}
is_set_unless_default!(bool i32 u32 i64 u64 f64);

/// Takes a protobuf struct apart completely and says of each field what becomes of it.
///
/// The first argument is the [`FieldPath`], or `()` where no verdict needs it.
///
/// - `supported`: bound to a variable of its name; changing it changes the model.
/// - `awaited "traffic"`: bound; checked and kept in the model, where nothing reads it before the traffic issue. Whatever holds the
///   message lists it.
/// - `partly { field: "what of it" }`: bound; the text says which values have behaviour and what happens to the others.
/// - `inert { field: "why nobody could see the difference" }`: dropped.
/// - `unsupported`: if set, listed as a [`Problem`]; `field: "traffic"` says which issue builds it, and the variable may be kept.
/// - `never { field: "why" }`: as `unsupported`, and nothing will build it.
/// - `refused { field: "what ignoring it would do" }`: if set, the resource is rejected (`return Err`).
macro_rules! verdicts {
    ($at:expr, $proto:expr => $message:path {
        $(supported { $($supported:ident),* $(,)? })?
        $(awaited $issue:literal { $($awaited:ident),* $(,)? })*
        $(partly { $($partly:ident : $partly_text:literal),* $(,)? })?
        $(inert { $($inert:ident : $inert_text:literal),* $(,)? })?
        $(unsupported { $($unsupported:ident $(: $builder:literal)?),* $(,)? })?
        $(never { $($never:ident : $never_text:literal),* $(,)? })?
        $(refused { $($refused:ident : $refused_text:literal),* $(,)? })?
    }) => {
        let $message {
            $($($supported,)*)?
            $($($awaited,)*)*
            $($($partly,)*)?
            $($($inert: _,)*)?
            $($($unsupported,)*)?
            $($($never,)*)?
            $($($refused,)*)?
        } = $proto;
        $($(
            if $crate::field::IsSet::is_set(&$unsupported) {
                $at.field($crate::field::name(stringify!($unsupported)))
                    .problem(concat!("has no effect here" $(, ": the ", $builder, " issue builds it")?));
            }
        )*)?
        $($(
            if $crate::field::IsSet::is_set(&$never) {
                $at.field($crate::field::name(stringify!($never)))
                    .problem(concat!("has no effect here: ", $never_text));
            }
        )*)?
        $($(
            if $crate::field::IsSet::is_set(&$refused) {
                let reason = concat!("is not supported, and ", $refused_text);
                return Err($at.field($crate::field::name(stringify!($refused))).reject(reason));
            }
        )*)?
    };
}
pub(crate) use verdicts;

/// Lists every variant of a protobuf `oneof` with its verdict; a variant that a newer Envoy adds breaks the build. The `match` that
/// gives them behaviour stands beside it.
macro_rules! choices {
    ($oneof:path {
        $(supported { $($supported:ident),* $(,)? })?
        $(awaited $issue:literal { $($awaited:ident),* $(,)? })*
        $(partly { $($partly:ident : $partly_text:literal),* $(,)? })?
        $(inert { $($inert:ident : $inert_text:literal),* $(,)? })?
        $(refused { $($refused:ident : $refused_text:literal),* $(,)? })?
    }) => {
        const _: fn(&$oneof) = |choice| {
            type Choice = $oneof;
            match choice {
                $($(Choice::$supported(_) => (),)*)?
                $($(Choice::$awaited(_) => (),)*)*
                $($(Choice::$partly(_) => (),)*)?
                $($(Choice::$inert(_) => (),)*)?
                $($(Choice::$refused(_) => (),)*)?
            }
        };
    };
}
pub(crate) use choices;

/// The protobuf name of a Rust identifier.
pub(crate) fn name(identifier: &'static str) -> &'static str {
    identifier.strip_prefix("r#").unwrap_or(identifier)
}

/// The one of `valid` with the least edits from `name`.
pub(crate) fn nearest<'n>(name: &str, valid: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // A peer chooses the length of `name`; the cost is its product with the valid names' lengths.
    let name: Vec<char> = name.chars().take(200).collect();
    valid.into_iter().min_by_key(|candidate| edits(&name, candidate))
}

/// Levenshtein distance.
fn edits(left: &[char], right: &str) -> usize {
    let mut row: Vec<usize> = (0..=left.len()).collect();
    for (right_index, right_char) in right.chars().enumerate() {
        let mut diagonal = right_index;
        let mut before = right_index + 1;
        for (cell, left_char) in row.iter_mut().skip(1).zip(left) {
            let substitute = diagonal + usize::from(*left_char != right_char);
            diagonal = *cell;
            *cell = substitute.min(diagonal + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = right_index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_a_user_would_write_it() {
        let context = Context::new("listener", "x");
        let root = context.root();
        let chain = root.field("filter_chains").index(2);
        let filter = chain.field("filters").index(0);
        let config = filter.field("typed_config");
        let filter = config.field("http_filters").index(1);
        assert_eq!(
            filter.to_string(),
            "filter_chains[2].filters[0].typed_config.http_filters[1]"
        );
        assert_eq!(
            root.field("metadata").key("istio").to_string(),
            "metadata[\"istio\"]"
        );
    }

    #[test]
    fn a_rejection_names_resource_path_reason_and_nearest_name() {
        let context = Context::new("listener", "x");
        let root = context.root();
        let rejection =
            root.field("a")
                .index(0)
                .reject_name("unknown b \"rooter\"", "rooter", ["cors", "router"]);
        let text = "listener \"x\": a[0]: unknown b \"rooter\"; did you mean \"router\"?";
        assert_eq!(rejection.to_string(), text);
        assert_eq!(root.reject("empty").to_string(), "listener \"x\": empty");
    }

    #[test]
    fn a_text_that_quotes_too_much_is_cut() {
        let context = Context::new("listener", &"é".repeat(9000));
        let rejection = context
            .root()
            .field("a")
            .key(&"k".repeat(9000))
            .reject("r".repeat(9000));
        assert!(
            rejection.to_string().len() < 3 * (MAX_TEXT_BYTES + 10),
            "{}",
            rejection.to_string().len()
        );
        assert!(rejection.reason.ends_with("r…"));
    }

    #[test]
    fn the_nearest_name_has_the_least_edits() {
        assert_eq!(
            nearest("%STRT_TIME%", ["%DURATION%", "%START_TIME%"]),
            Some("%START_TIME%")
        );
        assert_eq!(nearest("x", []), None);
    }
}
