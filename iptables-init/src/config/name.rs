//! Names of the flags that have variables. Source: Istio `tools/istio-iptables/pkg/cmd/root.go`.

use super::setting::Name;

pub(super) const ENVOY_PORT: Name = Name::short('p', "envoy-port");
pub(super) const INBOUND_PORT: Name = Name::short('z', "inbound-capture-port");
pub(super) const TUNNEL_PORT: Name = Name::short('e', "inbound-tunnel-port");
pub(super) const PROXY_UID: Name = Name::short('u', "proxy-uid");
pub(super) const PROXY_GID: Name = Name::short('g', "proxy-gid");
pub(super) const MODE: Name = Name::short('m', "istio-inbound-interception-mode");
pub(super) const TPROXY_MARK: Name = Name::short('t', "istio-inbound-tproxy-mark");
pub(super) const TPROXY_TABLE: Name = Name::short('r', "istio-inbound-tproxy-route-table");
pub(super) const INBOUND_PORTS: Name = Name::short('b', "istio-inbound-ports");
pub(super) const INBOUND_PORTS_EXCLUDE: Name = Name::short('d', "istio-local-exclude-ports");
pub(super) const SERVICE_CIDR: Name = Name::short('i', "istio-service-cidr");
pub(super) const SERVICE_EXCLUDE_CIDR: Name = Name::short('x', "istio-service-exclude-cidr");
pub(super) const OUTBOUND_PORTS: Name = Name::short('q', "istio-outbound-ports");
pub(super) const OUTBOUND_PORTS_EXCLUDE: Name = Name::short('o', "istio-local-outbound-ports-exclude");
pub(super) const EXCLUDE_INTERFACES: Name = Name::short('c', "istio-exclude-interfaces");
pub(super) const VIRT_INTERFACES: Name = Name::short('k', "kube-virt-interfaces");
pub(super) const DRY_RUN: Name = Name::short('n', "dry-run");
pub(super) const DROP_INVALID: Name = Name::aliased("drop-invalid", "INVALID_DROP");
pub(super) const DUAL_STACK: Name = Name::aliased("dual-stack", "ISTIO_DUAL_STACK");
pub(super) const REDIRECT_DNS: Name = Name::aliased("redirect-dns", "ISTIO_META_DNS_CAPTURE");
pub(super) const CAPTURE_ALL_DNS: Name = Name::long("capture-all-dns");
pub(super) const FORCE_APPLY: Name = Name::long("force-apply");
pub(super) const FORCE_BINARY: Name = Name::long("force-iptables-binary");
pub(super) const RECONCILE: Name = Name::long("reconcile");
pub(super) const CLEANUP_ONLY: Name = Name::long("cleanup-only");
pub(super) const SKIP_RULE_APPLY: Name = Name::long("skip-rule-apply");
pub(super) const RUN_VALIDATION: Name = Name::long("run-validation");
pub(super) const PROBE_PORT: Name = Name::long("iptables-probe-port");
pub(super) const PROBE_TIMEOUT: Name = Name::long("probe-timeout");
pub(super) const NATIVE_NFTABLES: Name = Name::long("native-nftables");
pub(super) const NETWORK_NAMESPACE: Name = Name::long("network-namespace");
pub(super) const CNI_MODE: Name = Name::long("cni-mode");
