//! Protobuf to [`JwtAuthn`].
use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    self as pb, jwt_provider, jwt_requirement, per_route_config, requirement_rule,
};

use super::{ClaimHeader, Jwks, JwtAuthn, JwtHeader, JwtProvider, JwtRequirement, JwtRule, RouteSettings};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::StringMatcher;
use crate::route::RouteMatch;
use crate::secret::DataSource;
use crate::service::Uri;

/// `RemoteJwks.cache_duration` when unset.
const CACHE_DURATION: Duration = Duration::from_secs(300);
/// `JwtProvider.clock_skew_seconds` when 0.
const CLOCK_SKEW_SECONDS: u32 = 60;

impl JwtAuthn {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::JwtAuthentication) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::JwtAuthentication {
            awaited "security" { providers, rules, bypass_cors_preflight, requirement_map, strip_failure_response, stat_prefix }
            refused { filter_state_rules: "ignoring it would let requests without a token through" }
        });
        let providers = sorted(providers).into_iter().map(|(name, proto)| {
            let provider = JwtProvider::from_proto(&at.field("providers").key(&name), proto)?;
            Ok((name, provider))
        });
        let providers = providers.collect::<Result<Vec<_>, Rejection>>()?;
        let known = Known(providers.iter().map(|(name, _)| name.as_str()).collect());
        let requirements = sorted(requirement_map).into_iter().map(|(name, proto)| {
            let requirement = known.requirement(&at.field("requirement_map").key(&name), proto)?;
            Ok((name, requirement))
        });
        let requirements = requirements.collect::<Result<Vec<_>, Rejection>>()?;
        let rules = rules.into_iter().enumerate();
        let rules =
            rules.map(|(index, proto)| known.rule(&at.field("rules").index(index), proto, &requirements));
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(Self {
            providers,
            rules,
            requirements,
            bypass_cors_preflight,
            strip_failure_response,
            stat_prefix,
        })
    }
}

fn sorted<T>(map: HashMap<String, T>) -> Vec<(String, T)> {
    let mut list: Vec<_> = map.into_iter().collect();
    list.sort_by(|left, right| left.0.cmp(&right.0));
    list
}

impl JwtProvider {
    fn from_proto(at: &FieldPath<'_>, proto: pb::JwtProvider) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::JwtProvider {
            awaited "security" {
                issuer, audiences, subjects, require_expiration, max_lifetime, jwks_source_specifier, forward, from_headers,
                from_params, from_cookies, forward_payload_header, pad_forward_payload_header, payload_in_metadata,
                normalize_payload_in_metadata, header_in_metadata, clock_skew_seconds, claim_to_headers, clear_route_cache,
            }
            inert { jwt_cache_config: "verifying a token again gives the same answer" }
            unsupported { failed_status_in_metadata: "security" }
        });
        verdicts!(at, normalize_payload_in_metadata.unwrap_or_default() => jwt_provider::NormalizePayload {
            awaited "security" { space_delimited_claims }
        });
        let field = at.field("subjects");
        let subjects = subjects
            .map(|proto| StringMatcher::from_proto(&field, proto))
            .transpose()?;
        let headers = from_headers.into_iter().enumerate();
        let headers = headers
            .map(|(index, proto)| JwtHeader::from_proto(&at.field("from_headers").index(index), proto));
        let claims = claim_to_headers.into_iter().enumerate();
        let claims = claims
            .map(|(index, proto)| ClaimHeader::from_proto(&at.field("claim_to_headers").index(index), proto));
        Ok(Self {
            issuer,
            audiences,
            subjects,
            require_expiration,
            max_lifetime: at.field("max_lifetime").duration(max_lifetime)?,
            jwks: Jwks::from_proto(at, jwks_source_specifier)?,
            forward,
            from_headers: headers.collect::<Result<_, _>>()?,
            from_params,
            from_cookies,
            forward_payload_header,
            pad_forward_payload_header,
            payload_in_metadata,
            space_delimited_claims,
            header_in_metadata,
            clock_skew_seconds: match clock_skew_seconds {
                0 => CLOCK_SKEW_SECONDS,
                seconds => seconds,
            },
            claims: claims.collect::<Result<_, _>>()?,
            clear_route_cache,
        })
    }
}

impl Jwks {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<jwt_provider::JwksSourceSpecifier>,
    ) -> Result<Self, Rejection> {
        use jwt_provider::JwksSourceSpecifier;
        choices!(jwt_provider::JwksSourceSpecifier { awaited "security" { RemoteJwks, LocalJwks } });
        match proto {
            Some(JwksSourceSpecifier::LocalJwks(proto)) => {
                let at = at.field("local_jwks");
                Ok(Self::Local(
                    at.required(DataSource::from_proto(&at, Some(proto))?)?,
                ))
            }
            Some(JwksSourceSpecifier::RemoteJwks(proto)) => {
                let at = at.field("remote_jwks");
                verdicts!(at, proto => pb::RemoteJwks {
                    awaited "security" { http_uri, cache_duration }
                    unsupported { async_fetch: "security", retry_policy: "security" }
                });
                let field = at.field("cache_duration");
                let cache_duration = field.duration(cache_duration)?.unwrap_or(CACHE_DURATION);
                if cache_duration < Duration::from_millis(1) {
                    return Err(field.reject("must be 1 ms or longer"));
                }
                Ok(Self::Remote {
                    uri: Uri::from_proto(&at.field("http_uri"), http_uri)?,
                    cache_duration,
                })
            }
            None => Err(at.reject("has neither local_jwks nor remote_jwks")),
        }
    }
}

impl JwtHeader {
    fn from_proto(at: &FieldPath<'_>, proto: pb::JwtHeader) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::JwtHeader { awaited "security" { name, value_prefix } });
        Ok(Self {
            name: at.field("name").not_empty(name.to_ascii_lowercase())?,
            value_prefix,
        })
    }
}

impl ClaimHeader {
    fn from_proto(at: &FieldPath<'_>, proto: pb::JwtClaimToHeader) -> Result<Self, Rejection> {
        use pb::jwt_claim_to_header::PathSegment;
        verdicts!(at, proto => pb::JwtClaimToHeader { awaited "security" { header_name, claim_name, claim_path } });
        let segments = claim_path.into_iter().enumerate().map(|(index, proto)| {
            let at = at.field("claim_path").index(index);
            verdicts!(at, proto => PathSegment { awaited "security" { key } });
            at.field("key").not_empty(key)
        });
        let mut claim = segments.collect::<Result<Vec<_>, _>>()?;
        if claim.is_empty() {
            let name = at.field("claim_name").not_empty(claim_name)?;
            claim = name.split('.').map(str::to_owned).collect();
        }
        Ok(Self {
            header: at
                .field("header_name")
                .not_empty(header_name.to_ascii_lowercase())?,
            claim,
        })
    }
}

/// The names of the providers.
struct Known<'a>(Vec<&'a str>);

impl Known<'_> {
    fn rule(
        &self,
        at: &FieldPath<'_>,
        proto: pb::RequirementRule,
        requirements: &[(String, JwtRequirement)],
    ) -> Result<JwtRule, Rejection> {
        use requirement_rule::RequirementType;
        verdicts!(at, proto => pb::RequirementRule { awaited "security" { r#match, requirement_type } });
        choices!(requirement_rule::RequirementType { awaited "security" { Requires, RequirementName } });
        let requirement = match requirement_type {
            Some(RequirementType::Requires(proto)) => Some(self.requirement(&at.field("requires"), proto)?),
            Some(RequirementType::RequirementName(name)) => {
                let at = at.field("requirement_name");
                match requirements.iter().find(|(known, _)| *known == name) {
                    Some((_, requirement)) => Some(requirement.clone()),
                    None => {
                        let known = requirements.iter().map(|(known, _)| known.as_str());
                        return Err(at.reject_name(
                            format!("{name:?} is not in requirement_map"),
                            &name,
                            known,
                        ));
                    }
                }
            }
            None => None,
        };
        let field = at.field("match");
        Ok(JwtRule {
            matcher: RouteMatch::from_proto(&field, field.required(r#match)?)?,
            requirement,
        })
    }

    fn requirement(
        &self,
        at: &FieldPath<'_>,
        proto: pb::JwtRequirement,
    ) -> Result<JwtRequirement, Rejection> {
        use jwt_requirement::RequiresType;
        verdicts!(at, proto => pb::JwtRequirement { awaited "security" { requires_type } });
        choices!(jwt_requirement::RequiresType {
            awaited "security" {
                ProviderName, ProviderAndAudiences, RequiresAny, RequiresAll, AllowMissingOrFailed, AllowMissing,
            }
            refused { ExtractOnlyWithoutValidation: "claims that nobody verified are no use here" }
        });
        Ok(match at.required(requires_type)? {
            RequiresType::ProviderName(name) => JwtRequirement::Provider {
                name: self.provider(&at.field("provider_name"), name)?,
                audiences: Vec::new(),
            },
            RequiresType::ProviderAndAudiences(proto) => {
                let at = at.field("provider_and_audiences");
                verdicts!(at, proto => pb::ProviderWithAudiences { awaited "security" { provider_name, audiences } });
                JwtRequirement::Provider {
                    name: self.provider(&at.field("provider_name"), provider_name)?,
                    audiences,
                }
            }
            RequiresType::RequiresAny(proto) => {
                verdicts!((), proto => pb::JwtRequirementOrList { awaited "security" { requirements } });
                JwtRequirement::Any(self.several(&at.field("requires_any"), requirements)?)
            }
            RequiresType::RequiresAll(proto) => {
                verdicts!((), proto => pb::JwtRequirementAndList { awaited "security" { requirements } });
                JwtRequirement::All(self.several(&at.field("requires_all"), requirements)?)
            }
            RequiresType::AllowMissingOrFailed(_) => JwtRequirement::AllowMissingOrFailed,
            RequiresType::AllowMissing(_) => JwtRequirement::AllowMissing,
            RequiresType::ExtractOnlyWithoutValidation(_) => {
                return Err(at
                    .field("extract_only_without_validation")
                    .reject("is not supported"));
            }
        })
    }

    fn several(
        &self,
        at: &FieldPath<'_>,
        protos: Vec<pb::JwtRequirement>,
    ) -> Result<Vec<JwtRequirement>, Rejection> {
        let at = at.field("requirements");
        if protos.len() < 2 {
            return Err(at.reject("needs at least two items"));
        }
        let items = protos.into_iter().enumerate();
        items
            .map(|(index, proto)| self.requirement(&at.index(index), proto))
            .collect()
    }

    /// Source: Envoy, `Verifier::create`: "Required provider ['…'] is not configured.".
    fn provider(&self, at: &FieldPath<'_>, name: String) -> Result<String, Rejection> {
        match self.0.contains(&name.as_str()) {
            true => Ok(name),
            false => Err(at.reject_name(
                format!("the provider {name:?} is not in providers"),
                &name,
                self.0.iter().copied(),
            )),
        }
    }
}

impl RouteSettings {
    /// Converts the settings of a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::PerRouteConfig) -> Result<Self, Rejection> {
        use per_route_config::RequirementSpecifier;
        verdicts!(at, proto => pb::PerRouteConfig { awaited "security" { requirement_specifier } });
        choices!(per_route_config::RequirementSpecifier { awaited "security" { Disabled, RequirementName } });
        match at.required(requirement_specifier)? {
            RequirementSpecifier::Disabled(true) => Ok(Self::Disabled),
            RequirementSpecifier::Disabled(false) => Err(at.field("disabled").reject("must be true")),
            RequirementSpecifier::RequirementName(name) => {
                Ok(Self::Requirement(at.field("requirement_name").not_empty(name)?))
            }
        }
    }
}
