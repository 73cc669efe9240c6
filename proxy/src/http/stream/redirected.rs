//! A stream that ends with a redirect which its client does not see, and the one that goes on instead.
//! Source: Envoy `ActiveStreamDecoderFilter::recreateStream`, `ConnectionManagerImpl::ActiveStream::recreateStream`.
use std::pin::Pin;

use super::Stream;
use crate::codec::{Body, Feedback, Request, RequestHead, Response, ResponseHead};
use crate::http::route_table::{Action, Route};
use crate::http::router::internal_redirect::{Journey, NextPass};

impl Stream {
    /// What led to this stream; `None`: the client itself.
    pub(in crate::http) fn journey(&self) -> Option<&Journey> {
        self.journey.as_deref()
    }

    /// As Envoy's, the log shows the route that a redirect leads to, also when that is not followed.
    pub(in crate::http) fn leads_to(&self, route: Option<&Route>, head: &RequestHead) {
        let mut info = self.info.borrow_mut();
        info.route_name = route.map(|route| route.name.clone());
        let target = route.and_then(|route| match &route.action {
            Action::Forward(forward) => forward.targets.get(0),
            Action::Redirect(_) | Action::Direct { .. } => None,
        });
        let found = target.and_then(|target| target.cluster.find(head));
        let (name, cluster) = found.unzip();
        info.upstream_cluster = cluster.flatten().map(|cluster| cluster.stat_name.clone());
        info.upstream_cluster_raw = name;
    }

    /// The request goes on with another stream.
    pub(in crate::http) fn pass_on_to(&self, next: NextPass) {
        // Once a stream: whoever redirects ends it.
        let _ = self.next.set(Box::new(next));
    }

    /// The head that the log shows: as Envoy, after a redirect that of the next stream.
    pub(super) fn head_in_the_end(&self) -> Option<&RequestHead> {
        let next = self.next.get().map(|next| &next.head);
        next.or_else(|| self.request.get())
    }

    /// Ends here, and answers with what the next stream does. In a box: few requests get here.
    pub(super) fn redirected<'a>(
        &'a self,
        head: &ResponseHead,
        next: &'a NextPass,
        feedback: Feedback,
    ) -> Pin<Box<dyn Future<Output = Response> + 'a>> {
        {
            let mut info = self.info.borrow_mut();
            info.response_code = Some(head.status);
            info.response_code_details = Some("internal_redirect".into());
        }
        self.keep_headers(&head.headers);
        self.finish();
        let request = Request {
            head: next.head.clone(),
            body: next.body.borrow_mut().take().unwrap_or_else(Body::empty),
            feedback,
        };
        let journey = Box::new(next.journey.clone());
        Box::pin(super::run(
            &self.manager,
            &self.downstream,
            request,
            Some(journey),
        ))
    }
}
