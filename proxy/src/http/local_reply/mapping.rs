//! What becomes of answers that are made here, as the connection manager says. Source: Envoy 1.40, `LocalReply::rewrite`,
//! `Http::Utility::prepareLocalReply`.
use http::StatusCode;
use http::header::CONTENT_TYPE;
use outrigger_model::access_log::{AccessLogFilter, AwaitedFilter};
use outrigger_model::fraction::Fraction;
use outrigger_model::hcm::local_reply as model;

use super::body_format::BodyFormat;
use super::{LocalReply, Made, PLAIN_TEXT};
use crate::codec::{RequestHead, Response, ResponseHead};
use crate::http::filter::draws;
use crate::http::header_changes::Changes;
use crate::http::matcher::HeaderMatcher;
use crate::http::request_id::X_REQUEST_ID;
use crate::telemetry::access_log::Filter;
use crate::telemetry::stream_info::StreamInfo;

/// Runtime of `LocalReplyConfig`.
#[derive(Debug)]
pub(in crate::http) struct LocalReplies {
    mappers: Box<[Mapper]>,
    format: Option<BodyFormat>,
}

#[derive(Debug)]
struct Mapper {
    of: Test,
    status: Option<StatusCode>,
    text: Option<String>,
    format: Option<BodyFormat>,
    changes: Changes,
}

/// Which answers.
#[derive(Debug)]
enum Test {
    Plain(Filter),
    Header(HeaderMatcher),
    NotHealthCheck,
    Share {
        share: Fraction,
        independent: bool,
    },
    All(Box<[Test]>),
    Any(Box<[Test]>),
    /// Nothing judges it, as the configuration's problems say.
    None,
}

impl LocalReplies {
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(in crate::http) fn new(config: &model::LocalReplies) -> Result<Self, regex::Error> {
        let mappers = config.mappers.iter().map(Mapper::new);
        Ok(Self {
            mappers: mappers.collect::<Result<_, _>>()?,
            format: config.usual_format.as_ref().map(BodyFormat::new),
        })
    }

    /// The response that `reply` becomes. `info` gets its status.
    pub(in crate::http) fn response(
        &self,
        reply: &LocalReply,
        request: Option<&RequestHead>,
        info: &mut StreamInfo,
    ) -> Response {
        let mut head = ResponseHead {
            status: reply.status,
            headers: reply.headers.iter().cloned().collect(),
        };
        info.response_code = Some(head.status);
        // What the filters see: a stream that ends now.
        let mut ended = info.clone();
        ended.finish();
        let mapper = self
            .mappers
            .iter()
            .find(|mapper| mapper.of.passes(request, &ended));
        let mut text = reply.body.as_bytes();
        let mut has_own_type = false;
        if let Some(mapper) = mapper {
            text = mapper.text.as_ref().map_or(text, |text| text.as_bytes());
            let media_type = |head: &ResponseHead| head.headers.get(CONTENT_TYPE).cloned();
            let before = media_type(&head);
            mapper.changes.change_response(&mut head, info, request);
            has_own_type = media_type(&head) != before;
            if let Some(status) = mapper.status {
                head.status = status;
                info.response_code = Some(status);
            }
        }
        let own = mapper.and_then(|mapper| mapper.format.as_ref());
        let (body, media_type) = match own.or(self.format.as_ref()) {
            None => (text.to_vec(), PLAIN_TEXT),
            Some(format) => (
                format.write(text, request, info, Some(&head.headers)),
                format.media_type.clone(),
            ),
        };
        let keeps_type =
            has_own_type || (body == reply.body.as_bytes() && head.headers.contains_key(CONTENT_TYPE));
        let made = Made {
            head,
            body: body.into(),
            media_type: (!keeps_type).then_some(media_type),
        };
        made.response(reply, request)
    }
}

impl Mapper {
    fn new(config: &model::ReplyMapper) -> Result<Self, regex::Error> {
        Ok(Self {
            of: Test::new(&config.replies)?,
            status: config.new_status.and_then(|code| StatusCode::from_u16(code).ok()),
            text: config.new_text.clone(),
            format: config.own_format.as_ref().map(BodyFormat::new),
            changes: Changes::new(&config.added_headers, &[]),
        })
    }
}

impl Test {
    fn new(config: &AccessLogFilter) -> Result<Self, regex::Error> {
        let all = |filters: &[AccessLogFilter]| {
            let tests = filters.iter().map(Self::new);
            tests.collect::<Result<Box<[_]>, _>>()
        };
        Ok(match config {
            AccessLogFilter::And(filters) => Self::All(all(filters)?),
            AccessLogFilter::Or(filters) => Self::Any(all(filters)?),
            AccessLogFilter::Awaited(AwaitedFilter::Header(matcher)) => {
                Self::Header(HeaderMatcher::new(matcher)?)
            }
            AccessLogFilter::Awaited(AwaitedFilter::NotHealthCheck) => Self::NotHealthCheck,
            AccessLogFilter::Awaited(AwaitedFilter::Share { share, independent }) => Self::Share {
                share: *share,
                independent: *independent,
            },
            AccessLogFilter::Awaited(_) => Self::None,
            plain => match Filter::new(plain) {
                Ok(Some(filter)) => Self::Plain(filter),
                // The model refuses letters that no flag has.
                Ok(None) | Err(_) => Self::None,
            },
        })
    }

    fn passes(&self, request: Option<&RequestHead>, info: &StreamInfo) -> bool {
        match self {
            Self::Plain(filter) => filter.passes(info),
            Self::Header(matcher) => request.is_some_and(|request| matcher.matches(request)),
            Self::NotHealthCheck => !info.is_health_check,
            Self::Share { share, independent } => {
                let id = request.filter(|_| !independent).and_then(number_of_id);
                match id {
                    Some(number) => number % u64::from(Fraction::ALL.0) < u64::from(share.0),
                    None => draws(*share, &mut fastrand::Rng::new()),
                }
            }
            Self::All(tests) => tests.iter().all(|test| test.passes(request, info)),
            Self::Any(tests) => tests.iter().any(|test| test.passes(request, info)),
            Self::None => false,
        }
    }
}

/// The first eight digits of the request id. Source: Envoy `UUIDRequestIDExtension::getInteger`.
fn number_of_id(request: &RequestHead) -> Option<u64> {
    let id = request.headers.get(X_REQUEST_ID)?.to_str().ok()?;
    u64::from_str_radix(id.get(..8)?, 16).ok()
}
