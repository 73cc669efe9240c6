//! One value and where it came from, so that an error blames the right flag or variable.

use std::num::NonZeroU16;

use super::{ConfigError, values};
use crate::rule::Id;

/// A flag's names.
#[derive(Clone, Copy)]
pub(super) struct Name {
    short: Option<char>,
    long: &'static str,
    /// A variable that is read beside the one of the flag's own name.
    alias: Option<&'static str>,
}

impl Name {
    pub(super) const fn short(short: char, long: &'static str) -> Self {
        Name {
            short: Some(short),
            long,
            alias: None,
        }
    }

    pub(super) const fn long(long: &'static str) -> Self {
        Name {
            short: None,
            long,
            alias: None,
        }
    }

    pub(super) const fn aliased(long: &'static str, alias: &'static str) -> Self {
        Name {
            short: None,
            long,
            alias: Some(alias),
        }
    }

    fn flag(self) -> String {
        match self.short {
            Some(short) => format!("-{short}/--{}", self.long),
            None => format!("--{}", self.long),
        }
    }

    fn variable(self) -> String {
        self.long.to_ascii_uppercase().replace('-', "_")
    }
}

/// A value that is not empty, and its origin.
pub(super) struct Setting {
    origin: String,
    pub(super) value: String,
}

impl Setting {
    pub(super) fn new(origin: &str, value: &str) -> Self {
        Setting {
            origin: origin.to_owned(),
            value: value.to_owned(),
        }
    }

    /// Reads the whole value.
    pub(super) fn one<T>(&self, parse: fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        parse(&self.value).map_err(|reason| self.bad(&reason))
    }

    /// Reads a comma list; empty items count for nothing.
    pub(super) fn list<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, ConfigError> {
        let items = self.value.split(',').filter(|item| !item.is_empty());
        let blame = |item: &str, reason| ConfigError::Bad {
            origin: self.origin.clone(),
            value: item.to_owned(),
            reason,
        };
        items
            .map(|item| parse(item).map_err(|reason| blame(item, reason)))
            .collect()
    }

    /// Reads a comma list of numbers or names, which `number_of` knows.
    pub(super) fn ids(&self, number_of: &dyn Fn(&str) -> Option<u32>) -> Result<Vec<Id>, ConfigError> {
        self.list(|item| values::id(item, number_of))
    }

    pub(super) fn bad(&self, reason: &str) -> ConfigError {
        ConfigError::Bad {
            origin: self.origin.clone(),
            value: self.value.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Looks values up: the flag wins, then its variable, then the alias. Empty values count as absent.
pub(super) struct Settings<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Settings<'_> {
    pub(super) fn flag(&self, given: &Option<String>, name: Name) -> Option<Setting> {
        if let Some(value) = given {
            // An explicit empty flag hides the variable.
            return (!value.is_empty()).then(|| Setting::new(&name.flag(), value));
        }
        self.env(&name.variable()).or_else(|| self.env(name.alias?))
    }

    pub(super) fn env(&self, variable: &str) -> Option<Setting> {
        let value = (self.env)(variable)?;
        (!value.is_empty()).then(|| Setting::new(&format!("environment variable {variable}"), &value))
    }

    pub(super) fn switch(&self, given: &Option<String>, name: Name) -> Result<bool, ConfigError> {
        self.switch_or(given, name, false)
    }

    pub(super) fn switch_or(
        &self,
        given: &Option<String>,
        name: Name,
        default: bool,
    ) -> Result<bool, ConfigError> {
        self.flag(given, name)
            .map_or(Ok(default), |setting| setting.one(values::switch))
    }

    pub(super) fn ids(
        &self,
        given: &Option<String>,
        name: Name,
        number_of: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Vec<Id>, ConfigError> {
        self.flag(given, name)
            .map_or(Ok(Vec::new()), |setting| setting.ids(number_of))
    }

    pub(super) fn port(
        &self,
        given: &Option<String>,
        name: Name,
        default: NonZeroU16,
    ) -> Result<NonZeroU16, ConfigError> {
        self.flag(given, name)
            .map_or(Ok(default), |setting| setting.one(values::port))
    }

    pub(super) fn list<T>(
        &self,
        given: &Option<String>,
        name: Name,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        self.flag(given, name)
            .map_or(Ok(Vec::new()), |setting| setting.list(parse))
    }
}
