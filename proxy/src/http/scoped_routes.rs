//! Which table a request is routed by: always the same one, or that of its scope. Source: Envoy `ScopedConfigImpl`.
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use outrigger_model::scoped_routes::{KeyElement, KeyPart};

use super::route_table::{RouteCell, RouteTable};
use crate::codec::RequestHead;

/// Between the parts of a key; no header value has it.
const PART_END: char = '\n';

/// The tables of a connection manager.
#[derive(Debug, Clone)]
pub(crate) enum Routes {
    /// One.
    Table(Arc<RouteCell>),
    /// One for each scope.
    Scoped {
        /// What of a request makes its key.
        key: Vec<KeyPart>,
        /// The scopes.
        scopes: Arc<ScopeCell>,
    },
}

/// Tables by key.
pub(crate) type Scopes = HashMap<String, Arc<RouteCell>>;

/// The cell that listeners hold: scope discovery swaps what is in it.
#[derive(Debug, Default)]
pub(crate) struct ScopeCell(ArcSwap<Scopes>);

impl ScopeCell {
    /// Streams that begin from now on use these.
    pub(crate) fn set(&self, scopes: Scopes) {
        self.0.store(Arc::new(scopes));
    }

    /// The scopes now.
    pub(crate) fn load(&self) -> Guard<Arc<Scopes>> {
        self.0.load()
    }
}

impl Routes {
    /// The table for this request; `None`: it is in no scope.
    pub(crate) fn load(&self, head: &RequestHead) -> Option<Guard<Arc<RouteTable>>> {
        match self {
            Self::Table(cell) => Some(cell.load()),
            Self::Scoped { key, scopes } => {
                let key = request_key(key, head)?;
                scopes.load().get(&key).map(|cell| cell.load())
            }
        }
    }
}

/// A key of these parts.
pub(crate) fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().fold(String::new(), |mut key, part| {
        key.push_str(part);
        key.push(PART_END);
        key
    })
}

/// `None`: a part is missing.
fn request_key(parts: &[KeyPart], head: &RequestHead) -> Option<String> {
    let values: Option<Vec<&str>> = parts.iter().map(|part| value(part, head)).collect();
    Some(joined(values?))
}

fn value<'a>(part: &KeyPart, head: &'a RequestHead) -> Option<&'a str> {
    let value = std::str::from_utf8(head.header(&part.header_name)?).ok()?;
    let separator = part.element_separator.as_str();
    let whole = separator.is_empty().then_some(value);
    let split = (!separator.is_empty()).then(|| value.split(separator));
    let mut elements = whole.into_iter().chain(split.into_iter().flatten());
    match &part.element {
        KeyElement::Index(index) => elements.nth(usize::try_from(*index).unwrap_or(usize::MAX)),
        KeyElement::Named {
            separator,
            element_key,
        } => elements.find_map(|element| {
            let (key, value) = element.split_once(separator.as_str()).unwrap_or((element, ""));
            (key == element_key).then_some(value)
        }),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Version};

    use super::*;

    #[track_caller]
    fn check(separator: &str, element: KeyElement, value: &'static str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert("x-scope", HeaderValue::from_static(value));
        let head = RequestHead {
            method: Method::GET,
            path: "/".parse().expect("a path"),
            authority: HeaderValue::from_static("a:80"),
            scheme: "http",
            version: Version::HTTP_11,
            headers,
            is_upgrade: false,
        };
        let part = |name: &str, separator: &str, element| KeyPart {
            header_name: name.to_owned(),
            element_separator: separator.to_owned(),
            element,
        };
        let parts = [
            part("x-scope", separator, element),
            part("host", "", KeyElement::Index(0)),
        ];
        let expected = expected.map(|value| joined([value, "a:80"]));
        assert_eq!(request_key(&parts, &head), expected, "{value}");
    }

    #[test]
    fn a_key_is_made_of_elements_of_headers() {
        let named = || KeyElement::Named {
            separator: "=".to_owned(),
            element_key: "b".to_owned(),
        };
        check("", KeyElement::Index(0), "a,b", Some("a,b"));
        check(",", KeyElement::Index(1), "a,b", Some("b"));
        check(",", KeyElement::Index(2), "a,b", None);
        check(";", named(), "a=1;b=2=3;b=4", Some("2=3"));
        check(";", named(), "a=1;b", Some(""));
        check(";", named(), "a=1", None);
    }
}
