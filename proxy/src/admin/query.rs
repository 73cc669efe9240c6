//! Query strings. As Envoy's admin: percent-decoded, `+` stands for itself, of equal names the first counts.
use percent_encoding::percent_decode_str;

/// Names and values in the order given; a name without `=` has an empty value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Never fails: what is no UTF-8 once decoded gets replacement characters.
    pub(super) fn parse(text: &str) -> Self {
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    /// The value of `name`, which may be empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of `name` unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// `name` is there, whatever its value: `usedonly=false` is set, as in Envoy.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Pairs with a value: a form sends the fields that nobody filled in as well.
    pub(super) fn filled(&self) -> Vec<(&str, &str)> {
        let pairs = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(|(_, value)| !value.is_empty()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, expected: Option<&str>) {
        assert_eq!(Query::parse(text).value(name), expected, "{text}");
    }

    #[test]
    fn values_are_decoded_and_the_first_counts() {
        check("filter=a%7Cb", "filter", Some("a|b"));
        check("filter=a+b&filter=c", "filter", Some("a+b"));
        check("usedonly&filter=^x=y$", "filter", Some("^x=y$"));
        check("usedonly&filter", "usedonly", Some(""));
        check("&&", "", None);
        check("a=%ff%zz", "a", Some("\u{fffd}%zz"));
    }

    #[test]
    fn fields_left_empty_do_not_count() {
        assert_eq!(
            Query::parse("paths=&level=debug&x").filled(),
            [("level", "debug")]
        );
    }
}
