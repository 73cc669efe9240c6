//! Response flags: why a stream or connection did not end as an upstream wished, in a few letters.
//!
//! Source: Envoy docs, access logging, `%RESPONSE_FLAGS%`; order of enum and letters as Envoy 1.40
//! lists them in `ResponseFlagFilter`'s validation message.
use std::fmt;

macro_rules! response_flags {
    ($($(#[$doc:meta])* $name:ident $short:literal,)*) => {
        /// One reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(crate) enum ResponseFlag { $($(#[$doc])* $name,)* }

        impl ResponseFlag {
            /// All of them, in Envoy's order.
            pub(crate) const ALL: &'static [ResponseFlag] = &[$(ResponseFlag::$name,)*];

            /// As in `%RESPONSE_FLAGS%`.
            pub(crate) fn short(self) -> &'static str {
                match self { $(ResponseFlag::$name => $short,)* }
            }
        }
    };
}

response_flags! {
    /// The local service failed its health check.
    FailedLocalHealthCheck "LH",
    /// No healthy host in the cluster; with a 503.
    NoHealthyUpstream "UH",
    /// The route's or the attempt's time-out passed; with a 504.
    UpstreamRequestTimeout "UT",
    /// The stream was reset from here.
    LocalReset "LR",
    /// The upstream reset the stream.
    UpstreamRemoteReset "UR",
    /// No connection to the upstream.
    UpstreamConnectionFailure "UF",
    /// The upstream connection ended during the request.
    UpstreamConnectionTermination "UC",
    /// A circuit breaker is open.
    UpstreamOverflow "UO",
    /// No route, or no filter chain.
    NoRouteFound "NR",
    /// Fault filter: delayed.
    DelayInjected "DI",
    /// Fault filter: aborted.
    FaultInjected "FI",
    /// Rate limited.
    RateLimited "RL",
    /// Denied by the external authorisation service.
    UnauthorizedExternalService "UAEX",
    /// The rate limit service could not be asked.
    RateLimitServiceError "RLSE",
    /// The downstream connection ended first.
    DownstreamConnectionTermination "DC",
    /// Retries, or TCP connection attempts, are used up.
    UpstreamRetryLimitExceeded "URX",
    /// Stream idle time-out.
    StreamIdleTimeout "SI",
    /// A strictly checked `x-envoy-*` header is invalid.
    InvalidEnvoyRequestHeaders "IH",
    /// The downstream broke the protocol.
    DownstreamProtocolError "DPE",
    /// The upstream stream reached its longest duration.
    UpstreamMaxStreamDurationReached "UMSDR",
    /// Answered from a cache filter.
    ResponseFromCacheFilter "RFCF",
    /// A filter's configuration did not come in time.
    NoFilterConfigFound "NFCF",
    /// The downstream connection or request reached its longest duration.
    DurationTimeout "DT",
    /// The upstream broke the protocol.
    UpstreamProtocolError "UPE",
    /// The route names an unknown cluster.
    NoClusterFound "NC",
    /// Ended by the overload manager.
    OverloadManager "OM",
    /// DNS gave no address.
    DnsResolutionFailed "DF",
    /// Dropped by `drop_overload`.
    DropOverload "DO",
    /// The downstream reset the stream.
    DownstreamRemoteReset "DR",
    /// Dropped by a `drop_overload` of 100 %.
    UnconditionalDropOverload "UDO",
}

impl ResponseFlag {
    /// The flag of these letters; `None` for letters that Envoy 1.40 does not know.
    pub(crate) fn from_short(short: &str) -> Option<ResponseFlag> {
        Self::ALL.iter().copied().find(|flag| flag.short() == short)
    }
}

/// More flags than there are do not fit.
const CAPACITY: usize = 31;

/// The flags of one stream, in the order in which they were set: that is how Envoy prints them (`URX,UF` for HTTP,
/// `UF,URX` for TCP). 36 bytes, no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponseFlags {
    mask: u32,
    order: [u8; CAPACITY],
    len: u8,
}

impl ResponseFlags {
    /// None set.
    pub(crate) const fn new() -> ResponseFlags {
        ResponseFlags {
            mask: 0,
            order: [0; CAPACITY],
            len: 0,
        }
    }

    /// Sets a flag; its place in the order is that of the first time.
    pub(crate) fn set(&mut self, flag: ResponseFlag) {
        if self.contains(flag) {
            return;
        }
        self.mask |= bit(flag);
        if let Some(place) = self.order.get_mut(usize::from(self.len)) {
            *place = flag as u8;
            self.len += 1;
        }
    }

    /// Whether it was set.
    pub(crate) fn contains(&self, flag: ResponseFlag) -> bool {
        self.mask & bit(flag) != 0
    }

    /// Whether none is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// Whether both have a flag in common.
    pub(crate) fn intersects(&self, other: &ResponseFlags) -> bool {
        self.mask & other.mask != 0
    }

    /// In the order of setting.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ResponseFlag> + '_ {
        let set = self.order.iter().take(usize::from(self.len));
        set.filter_map(|index| ResponseFlag::ALL.get(usize::from(*index)).copied())
    }
}

/// By which are set: their order seldom differs.
impl std::hash::Hash for ResponseFlags {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u32(self.mask);
    }
}

impl Default for ResponseFlags {
    fn default() -> ResponseFlags {
        ResponseFlags::new()
    }
}

impl FromIterator<ResponseFlag> for ResponseFlags {
    fn from_iter<T: IntoIterator<Item = ResponseFlag>>(flags: T) -> ResponseFlags {
        let mut all = ResponseFlags::new();
        flags.into_iter().for_each(|flag| all.set(flag));
        all
    }
}

fn bit(flag: ResponseFlag) -> u32 {
    1 << flag as u8
}

impl fmt::Display for ResponseFlags {
    /// Short names joined by `,`; `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, flag) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_in_the_order_of_setting() {
        let mut flags = ResponseFlags::new();
        assert_eq!(flags.to_string(), "-");
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "URX,UF");
    }

    #[test]
    fn the_letters_are_those_of_envoy() {
        let all: ResponseFlags = ResponseFlag::ALL.iter().copied().collect();
        let envoy = "LH,UH,UT,LR,UR,UF,UC,UO,NR,DI,FI,RL,UAEX,RLSE,DC,URX,SI,IH,DPE,UMSDR,RFCF,NFCF,DT,UPE,NC,OM,DF,DO,DR,UDO";
        assert_eq!(all.to_string(), envoy);
        for flag in ResponseFlag::ALL {
            assert_eq!(ResponseFlag::from_short(flag.short()), Some(*flag));
        }
        assert_eq!(ResponseFlag::from_short("XX"), None);
    }
}
