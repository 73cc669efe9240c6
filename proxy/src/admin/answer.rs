//! What an endpoint answers: status, media type, text.
use http::StatusCode;

/// Media types, spelled as Envoy does.
const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=UTF-8";

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// 200 with text.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: TEXT,
            body: body.into(),
        }
    }

    /// 200 with JSON.
    pub(super) fn json(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            body,
        }
    }

    /// 200 with a page.
    pub(super) fn html(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: HTML,
            body,
        }
    }

    /// 400: the query is wrong, `body` says how.
    pub(super) fn bad_request(body: impl Into<String>) -> Self {
        Self::text(body).with_status(StatusCode::BAD_REQUEST)
    }

    /// 500: this program is wrong.
    pub(super) fn internal(body: impl Into<String>) -> Self {
        Self::text(body).with_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}
