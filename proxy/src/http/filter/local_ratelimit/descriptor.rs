//! What a request is to rate limits: lists of keys and values. Source: route_components.proto `RateLimit.Action`.
use outrigger_model::http_filter::rate_limit::{RateLimit, RateLimitAction};

use crate::http::filter::Decoding;
use crate::http::matcher::HeaderMatcher;

/// One list of keys and values.
pub(super) type Entries = Vec<(String, String)>;

/// Makes one list of each request that all its actions have something for.
#[derive(Debug)]
pub(super) struct Generator {
    pub(super) stage: u32,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum Action {
    DestinationCluster,
    RemoteAddress,
    GenericKey {
        key: String,
        value: String,
    },
    RequestHeader {
        name: String,
        key: String,
        skips_missing: bool,
    },
    HeaderValueMatch {
        key: String,
        value: String,
        headers: Vec<HeaderMatcher>,
        expects_match: bool,
    },
}

impl Generator {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &RateLimit) -> Result<Self, regex::Error> {
        Ok(Self {
            stage: config.stage,
            actions: config.actions.iter().map(Action::new).collect::<Result<_, _>>()?,
        })
    }

    /// `None`: one action has nothing for it.
    pub(super) fn entries(&self, request: &Decoding<'_>) -> Option<Entries> {
        let mut entries = Entries::new();
        for action in &self.actions {
            match action.entry(request) {
                Entry::Made(key, value) => entries.push((key, value)),
                Entry::Skipped => {}
                Entry::Missing => return None,
            }
        }
        Some(entries).filter(|entries| !entries.is_empty())
    }
}

enum Entry {
    Made(String, String),
    /// The list goes on without it.
    Skipped,
    /// There is no list.
    Missing,
}

impl Action {
    fn new(config: &RateLimitAction) -> Result<Self, regex::Error> {
        Ok(match config {
            RateLimitAction::DestinationCluster => Self::DestinationCluster,
            RateLimitAction::RemoteAddress => Self::RemoteAddress,
            RateLimitAction::GenericKey { key, value } => Self::GenericKey {
                key: key.clone(),
                value: value.clone(),
            },
            RateLimitAction::RequestHeader {
                name,
                key,
                skips_missing,
            } => Self::RequestHeader {
                name: name.clone(),
                key: key.clone(),
                skips_missing: *skips_missing,
            },
            RateLimitAction::HeaderValueMatch {
                key,
                value,
                headers,
                expects_match,
            } => Self::HeaderValueMatch {
                key: key.clone(),
                value: value.clone(),
                headers: headers.iter().map(HeaderMatcher::new).collect::<Result<_, _>>()?,
                expects_match: *expects_match,
            },
        })
    }

    fn entry(&self, request: &Decoding<'_>) -> Entry {
        let made = |key: &str, value: &str| Entry::Made(key.to_owned(), value.to_owned());
        match self {
            Self::DestinationCluster => match request.cluster_name {
                Some(name) => made("destination_cluster", name),
                None => Entry::Missing,
            },
            Self::RemoteAddress => {
                let address = request.stream.info.borrow().downstream_remote_address();
                made("remote_address", &address.ip().to_string())
            }
            Self::GenericKey { key, value } => made(key, value),
            Self::RequestHeader {
                name,
                key,
                skips_missing,
            } => match request.head.header(name) {
                Some(value) => made(key, &String::from_utf8_lossy(value)),
                None if *skips_missing => Entry::Skipped,
                None => Entry::Missing,
            },
            Self::HeaderValueMatch {
                key,
                value,
                headers,
                expects_match,
            } => match headers.iter().all(|header| header.matches(request.head)) == *expects_match {
                true => made(key, value),
                false => Entry::Missing,
            },
        }
    }
}
