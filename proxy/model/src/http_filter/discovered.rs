//! A filter whose configuration comes by itself. Source: envoy/config/core/v3/extension.proto `ExtensionConfigSource`,
//! `TypedExtensionConfig`; Envoy `FilterConfigProviderManagerImplBase` for what is refused.
use envoy_types::pb::envoy::config::core::v3 as pb;
use envoy_types::pb::google::protobuf;

use super::{HTTP_FILTERS, HttpFilter, policy};
use crate::any::{self, TypedConfig, types};
use crate::bootstrap::ConfigSource;
use crate::field::{FieldPath, Rejection, verdicts};

/// The place of such a filter in the list of a connection manager; it is discovered by the filter's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredFilter {
    /// Who has its configuration.
    pub filter_source: ConfigSource,
    /// What the filter is as long as none has come.
    pub default_filter: Option<Box<HttpFilter>>,
    /// The listener does not wait for it.
    pub skips_warming: bool,
    /// The types that it may be of; never empty.
    type_names: Vec<String>,
}

/// The configuration of a filter, as a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterResource {
    /// As `envoy.extensions.filters.http.fault.v3.HTTPFault`.
    pub type_name: String,
    /// What it does; never a [`HttpFilter::Discovered`].
    pub converted_filter: HttpFilter,
}

impl DiscoveredFilter {
    /// Converts the place.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::ExtensionConfigSource,
        name: &str,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ExtensionConfigSource {
            supported { config_source, default_config, apply_default_config_without_warming }
            partly { type_urls: "types of filters that exist here; others are refused" }
        });
        let filter_source = ConfigSource::from_proto(&at.field("config_source"), config_source)?;
        let urls = at.field("type_urls");
        if type_urls.is_empty() {
            return Err(urls.reject("needs at least one"));
        }
        let types = type_urls.iter().enumerate();
        let types =
            types.map(|(index, url)| allowed(&at.field("type_urls").index(index), any::type_name(url), name));
        let mut discovered = Self {
            filter_source,
            default_filter: None,
            skips_warming: apply_default_config_without_warming,
            type_names: types.collect::<Result<_, _>>()?,
        };
        if let Some(any) = default_config {
            let at = at.field("default_config");
            let resource = FilterResource::from_any(&at, Some(any), name)?;
            discovered
                .check_type(&resource.type_name)
                .map_err(|reason| at.reject(reason))?;
            discovered.default_filter = Some(Box::new(resource.converted_filter));
        } else if discovered.skips_warming {
            return Err(at
                .field("apply_default_config_without_warming")
                .reject("is set, but default_config is not"));
        }
        Ok(discovered)
    }

    /// Whether a configuration of this type may be used here.
    ///
    /// # Errors
    /// Why not, with the types that may.
    pub fn check_type(&self, type_name: &str) -> Result<(), String> {
        if self.type_names.iter().any(|allowed| allowed == type_name) {
            return Ok(());
        }
        let allowed = self.type_names.join(", ");
        Err(format!(
            "has the type {type_name:?}, but type_urls allow {allowed}"
        ))
    }
}

/// A type that a discovered filter may be of, if there is a filter of that type.
fn allowed(at: &FieldPath<'_>, type_name: &str, name: &str) -> Result<String, Rejection> {
    if policy::is_policy(type_name) {
        return Err(at.reject(format!(
            "http filter {name:?} of type {type_name:?} has no behaviour here, and without it requests that it keeps out would be let in: \
             the security issue builds it"
        )));
    }
    if type_name == types::ROUTER {
        return Err(at.reject("names the router, which is written in the list"));
    }
    if !HTTP_FILTERS.contains(&type_name) {
        let reason = format!("names the unknown type {type_name:?}");
        return Err(at.reject_name(reason, type_name, HTTP_FILTERS));
    }
    Ok(type_name.to_owned())
}

impl FilterResource {
    /// Converts a resource.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::TypedExtensionConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TypedExtensionConfig {
            supported { typed_config }
            partly { name: "in rejections; the stream that brings it names it" }
        });
        Self::from_any(&at.field("typed_config"), typed_config, &name)
    }

    fn from_any(at: &FieldPath<'_>, any: Option<protobuf::Any>, name: &str) -> Result<Self, Rejection> {
        let config = TypedConfig::open(at, any)?;
        if policy::is_policy(&config.type_name) {
            return Err(policy::refuse(at, config, name));
        }
        if config.type_name == types::ROUTER {
            return Err(at.reject("is the router, which is written in the list of filters"));
        }
        Ok(Self {
            type_name: config.type_name.clone(),
            converted_filter: HttpFilter::known(at, config, name)?,
        })
    }
}
