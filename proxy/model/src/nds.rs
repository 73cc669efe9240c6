//! Istio's name table: what its DNS proxy answers. Source: istio pkg/dns/proto/nds.proto; contract §2.7.
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::istio;

/// Names and their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameTable {
    /// By fully qualified name, without the last dot.
    pub names: BTreeMap<String, NameInfo>,
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameInfo {
    /// Answers to A and AAAA questions.
    pub addresses: Vec<IpAddr>,
    /// `Kubernetes` or `External`.
    pub registry: String,
    /// The first label, for Kubernetes services.
    pub short_name: String,
    /// The namespace, for Kubernetes services.
    pub namespace: String,
}

impl NameTable {
    /// Converts a whole table.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: istio::NameTable) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::NameTable {
            partly { table: "asked for if the node captures DNS, and shown at /config/names; nothing answers from it yet" }
        });
        let entries = table.into_iter().map(|(name, info)| {
            let info = NameInfo::from_proto(&at.field("table").key(&name), info)?;
            Ok((name, info))
        });
        Ok(Self {
            names: entries.collect::<Result<_, Rejection>>()?,
        })
    }
}

impl NameInfo {
    fn from_proto(at: &FieldPath<'_>, proto: istio::NameInfo) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::NameInfo {
            partly {
                ips: "shown at /config/names; nothing answers from it yet",
                registry: "shown at /config/names; nothing answers from it yet",
                shortname: "shown at /config/names; nothing answers from it yet",
                namespace: "shown at /config/names; nothing answers from it yet",
            }
            inert { alt_hosts: "istiod no longer fills it; names are written out in the table" }
        });
        let addresses = ips.iter().enumerate().map(|(index, ip)| {
            let field = at.field("ips").index(index);
            ip.parse()
                .map_err(|_| field.reject(format!("{ip:?} is no IP address")))
        });
        let addresses = addresses.collect::<Result<_, Rejection>>()?;
        Ok(Self {
            addresses,
            registry,
            short_name: shortname,
            namespace,
        })
    }
}
