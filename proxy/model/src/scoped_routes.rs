//! A route table for each scope that a request can be in. Source: envoy/config/route/v3/scoped_route.proto, and `ScopedRoutes` of
//! http_connection_manager.proto.
use envoy_types::pb::envoy::config::route::v3::{self as pb, scoped_route_configuration as resource};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as hcm, scoped_routes,
};
use scoped_routes::scope_key_builder::{FragmentBuilder, fragment_builder};

use crate::bootstrap::ConfigSource;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::route::RouteTableConfig;

/// How a connection manager finds the table of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedRoutes {
    /// What `/config_dump` calls the scopes.
    pub set_name: String,
    /// What of a request makes its key; never empty.
    pub key_parts: Vec<KeyPart>,
    /// Where the scopes come from.
    pub scopes: ScopeSource,
}

/// Where scopes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeSource {
    /// All that a server has (SRDS).
    Discovered {
        /// That server.
        srds: ConfigSource,
        /// Where their tables come from.
        rds: ConfigSource,
    },
    /// Written in the listener, with their tables.
    Inline(Vec<Scope>),
}

/// One part of a key: something of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart {
    /// Lower case.
    pub header_name: String,
    /// Splits the value into elements; empty: the value is one.
    pub element_separator: String,
    /// Which element.
    pub element: KeyElement,
}

/// Which element of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyElement {
    /// The one at this place, from 0.
    Index(u32),
    /// The value of the first one that begins with this key.
    Named {
        /// Between key and value; empty: the value is what the key is.
        separator: String,
        /// The key.
        element_key: String,
    },
}

/// One `ScopedRouteConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// What a request has to have, part by part.
    pub key_values: Vec<String>,
    /// Its routes.
    pub scope_table: ScopeTable,
}

/// The routes of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeTable {
    /// Over route discovery.
    Named(String),
    /// Written in the scope.
    Inline(Box<RouteTableConfig>),
}

impl ScopedRoutes {
    /// Converts them.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: hcm::ScopedRoutes) -> Result<Self, Rejection> {
        verdicts!(at, proto => hcm::ScopedRoutes {
            supported { scope_key_builder, rds_config_source, config_specifier, name }
        });
        choices!(scoped_routes::ConfigSpecifier { supported { ScopedRouteConfigurationsList, ScopedRds } });
        use scoped_routes::ConfigSpecifier;
        let builder = at.field("scope_key_builder");
        verdicts!(builder, builder.required(scope_key_builder)? => scoped_routes::ScopeKeyBuilder {
            supported { fragments }
        });
        let parts = fragments.into_iter().enumerate();
        let parts =
            parts.map(|(index, proto)| KeyPart::from_proto(&builder.field("fragments").index(index), proto));
        let key_parts = parts.collect::<Result<Vec<_>, _>>()?;
        if key_parts.is_empty() {
            return Err(builder.field("fragments").reject("needs at least one"));
        }
        let scopes = match config_specifier {
            Some(ConfigSpecifier::ScopedRds(proto)) => {
                let rds = ConfigSource::from_proto(&at.field("rds_config_source"), rds_config_source)?;
                let at = at.field("scoped_rds");
                verdicts!(at, proto => hcm::ScopedRds {
                    supported { scoped_rds_config_source }
                    refused { srds_resources_locator: "xdstp collections have no behaviour here" }
                });
                let at = at.field("scoped_rds_config_source");
                let srds = ConfigSource::from_proto(&at, scoped_rds_config_source)?;
                ScopeSource::Discovered { srds, rds }
            }
            Some(ConfigSpecifier::ScopedRouteConfigurationsList(proto)) => {
                let at = at.field("scoped_route_configurations_list");
                verdicts!(at, proto => hcm::ScopedRouteConfigurationsList { supported { scoped_route_configurations } });
                let at = at.field("scoped_route_configurations");
                let scopes = scoped_route_configurations.into_iter().enumerate();
                let scopes = scopes.map(|(index, proto)| Scope::inline(&at.index(index), proto));
                ScopeSource::Inline(scopes.collect::<Result<_, _>>()?)
            }
            None => return Err(at.reject("has neither scoped_rds nor scoped_route_configurations_list")),
        };
        Ok(Self {
            set_name: name,
            key_parts,
            scopes,
        })
    }
}

impl KeyPart {
    fn from_proto(at: &FieldPath<'_>, proto: FragmentBuilder) -> Result<Self, Rejection> {
        use fragment_builder::header_value_extractor::{ExtractType, KvElement};
        verdicts!(at, proto => FragmentBuilder { supported { r#type } });
        choices!(fragment_builder::Type { supported { HeaderValueExtractor } });
        let Some(fragment_builder::Type::HeaderValueExtractor(proto)) = r#type else {
            return Err(at.field("header_value_extractor").reject("is missing"));
        };
        let at = at.field("header_value_extractor");
        verdicts!(at, proto => fragment_builder::HeaderValueExtractor {
            supported { name, element_separator, extract_type }
        });
        choices!(ExtractType { supported { Index, Element } });
        let element = match extract_type {
            Some(ExtractType::Index(index)) if index > 0 && element_separator.is_empty() => {
                return Err(at
                    .field("index")
                    .reject("is above 0, but without element_separator there is one element"));
            }
            Some(ExtractType::Index(index)) => KeyElement::Index(index),
            Some(ExtractType::Element(proto)) => {
                let at = at.field("element");
                verdicts!(at, proto => KvElement { supported { separator, key } });
                KeyElement::Named {
                    separator: at.field("separator").not_empty(separator)?,
                    element_key: at.field("key").not_empty(key)?,
                }
            }
            None => return Err(at.reject("has neither index nor element")),
        };
        Ok(Self {
            header_name: at.field("name").not_empty(name.to_ascii_lowercase())?,
            element_separator,
            element,
        })
    }
}

impl Scope {
    /// Converts a scope of a listener. As in Envoy, its table is written in it.
    fn inline(at: &FieldPath<'_>, proto: pb::ScopedRouteConfiguration) -> Result<Self, Rejection> {
        let scope = Self::from_proto(at, proto)?;
        match scope.scope_table {
            ScopeTable::Inline(_) => Ok(scope),
            ScopeTable::Named(_) => Err(at
                .field("route_configuration_name")
                .reject("is for scopes that are discovered; write route_configuration")),
        }
    }

    /// Converts a scope.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::ScopedRouteConfiguration,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ScopedRouteConfiguration {
            supported { route_configuration_name, route_configuration, key }
            inert {
                on_demand: "the table is there before a request asks for it",
                name: "the stream that brings the scope names it; nothing shows the name of an inline one",
            }
        });
        let field = at.field("key");
        verdicts!(field, field.required(key)? => resource::Key { supported { fragments } });
        let fragments = fragments.into_iter().enumerate();
        let fragments =
            fragments.map(|(index, proto)| fragment(&field.field("fragments").index(index), proto));
        let key_values = fragments.collect::<Result<Vec<_>, _>>()?;
        if key_values.is_empty() {
            return Err(field.field("fragments").reject("needs at least one"));
        }
        let scope_table = match route_configuration {
            Some(_) if !route_configuration_name.is_empty() => {
                return Err(at.reject("sets both route_configuration and route_configuration_name"));
            }
            Some(proto) => {
                let at = at.field("route_configuration");
                ScopeTable::Inline(Box::new(RouteTableConfig::from_proto(&at, proto)?))
            }
            None => ScopeTable::Named(
                at.field("route_configuration_name")
                    .not_empty(route_configuration_name)?,
            ),
        };
        Ok(Self {
            key_values,
            scope_table,
        })
    }
}

fn fragment(at: &FieldPath<'_>, proto: resource::key::Fragment) -> Result<String, Rejection> {
    use resource::key::fragment::Type;
    verdicts!(at, proto => resource::key::Fragment { supported { r#type } });
    choices!(Type { supported { StringKey } });
    match r#type {
        Some(Type::StringKey(value)) => Ok(value),
        None => Err(at.field("string_key").reject("is missing")),
    }
}
