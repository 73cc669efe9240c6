//! From a request head as it came to one that can be forwarded: clean, routed, past the filters, rewritten.
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::super::extras::Extras;
use super::super::filter::{Decoding, FilterState, Settings};
use super::super::head;
use super::super::header_changes::HeaderChanges;
use super::super::local_reply::LocalReply;
use super::super::route_table::{Action, Asked, InvalidPath, Route, RouteTable, Target};
use super::super::{router, upgrade};
use super::Stream;
use crate::codec::RequestHead;
use crate::telemetry::response_flag::ResponseFlag;
use crate::upstream::cluster::Cluster;

/// Where a request is to go.
#[derive(Default)]
pub(super) struct Chosen {
    /// `None`: there is no route for it.
    pub(super) route: Option<Arc<Route>>,
    pub(super) decorator: Option<HeaderValue>,
    /// Which of the route's targets.
    target: Option<usize>,
    cluster_name: Option<Arc<str>>,
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Its deadline is past before it goes.
    pub(super) is_over: bool,
}

impl Chosen {
    /// Of the route's targets the one that was drawn.
    pub(super) fn target(&self) -> Option<&Target> {
        match &self.route.as_ref()?.action {
            Action::Forward(forward) => forward.targets.get(self.target?),
            Action::Redirect(_) | Action::Direct { .. } => None,
        }
    }

    /// Header changes in the order in which they are made, those of a share of a route first.
    pub(super) fn header_changes(&self) -> impl Iterator<Item = &HeaderChanges> {
        let target = self.target().and_then(|target| target.changes.as_ref());
        let route = self.route.iter().flat_map(|route| &route.changes);
        target.into_iter().chain(route.map(|changes| &**changes))
    }

    /// What filters do for it; `None`: it has no route.
    pub(super) fn settings(&self) -> Option<&Settings> {
        let route = self.route.as_ref()?;
        let own = self.target().and_then(|target| target.settings.as_ref());
        Some(own.unwrap_or(&route.settings))
    }
}

/// A head that is on its way: the log shows it wherever it gets to.
struct Underway<'a> {
    stream: &'a Stream,
    head: Option<RequestHead>,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some(head) = self.head.take() {
            let _ = self.stream.request.set(head);
        }
    }
}

impl Stream {
    /// From the head as it came to a route and, past the filters, to a head that can be forwarded.
    pub(super) async fn prepare(
        self: &Rc<Self>,
        head: RequestHead,
        state: &mut FilterState,
        chosen: &mut Chosen,
    ) -> Result<(), LocalReply> {
        let mut underway = Underway {
            stream: self,
            head: Some(head),
        };
        let result = match &mut underway.head {
            Some(head) => self.route_and_filter(head, state, chosen).await,
            None => Ok(()),
        };
        drop(underway);
        self.info.borrow_mut().downstream_peer = state.downstream_peer.take();
        let cluster = chosen.cluster.as_ref().filter(|_| result.is_ok());
        self.watch_messages(self.request(), cluster);
        result
    }

    async fn route_and_filter(
        self: &Rc<Self>,
        head: &mut RequestHead,
        state: &mut FilterState,
        chosen: &mut Chosen,
    ) -> Result<(), LocalReply> {
        head::check(&self.manager.config, head)?;
        // As Envoy, what a redirect sends on was looked at before, but for the path that it brings.
        if self.journey.is_some() {
            self.clean_redirect(head)?;
            self.clean_host(head);
        } else {
            head::clean_path(&self.manager.config, head)?;
            self.clean_host(head);
            head::inbound(
                &self.manager,
                &self.downstream,
                head,
                &mut self.info.borrow_mut(),
                &mut self.random.borrow_mut(),
            )?;
        }
        self.choose(head, chosen);
        if let Some(route) = chosen.route.as_ref().filter(|_| head.is_upgrade) {
            // Once a stream.
            let _ = self.upgrade.set(upgrade::check(&self.manager, route, head)?);
        }
        let nothing = Settings::default();
        let mut request = Decoding::new(self, head, state, chosen.settings().unwrap_or(&nothing));
        request.route = chosen.route.as_deref();
        request.cluster = chosen.cluster.as_ref();
        request.cluster_name = chosen.cluster_name.as_deref();
        request.is_forwarded = chosen.target.is_some();
        self.manager.filters.decode(&mut request).await?;
        self.manager.stats.rq_total.inc();
        let Some(route) = &chosen.route else {
            return Ok(());
        };
        match &route.action {
            Action::Redirect(_) => self.rewrite(route, head)?,
            Action::Direct { .. } => {}
            Action::Forward(forward) if chosen.cluster.is_some() => {
                let steering = router::steering(self, head);
                self.change_request(chosen, head);
                // As Envoy, headers that routes add do not have it yet.
                if let Some(port) = self.lost_port.get() {
                    Extras::restore_port(port, head);
                }
                let tells = !self.manager.config.router.suppress_envoy_headers;
                forward.rewrite_host(head, tells, &self.info.borrow());
                self.rewrite(route, head)?;
                router::finish_head(self, route, forward, head, steering);
            }
            Action::Forward(_) => {}
        }
        Ok(())
    }

    /// Puts the path in order that a redirect brought. As Envoy's, the log of one that is refused shows a route all the same.
    fn clean_redirect(&self, head: &mut RequestHead) -> Result<(), LocalReply> {
        let result = head::clean_path(&self.manager.config, head);
        if result.is_err() {
            self.leads_to(self.find_route(head).as_deref(), head);
        }
        result
    }

    /// Takes from the authority what is not to count.
    fn clean_host(&self, head: &mut RequestHead) {
        if let Some(extras) = &self.manager.extras {
            let port = self.downstream.info.local_address.port();
            self.lost_port.set(extras.clean_host(port, head));
        }
    }

    /// The route that a head takes.
    pub(in crate::http) fn find_route(&self, head: &RequestHead) -> Option<Arc<Route>> {
        let table = self.manager.routes.load(head)?;
        self.route_in(&table, head)
    }

    fn route_in(&self, table: &RouteTable, head: &RequestHead) -> Option<Arc<Route>> {
        let mut random = self.random.borrow_mut();
        let tls = self.downstream.tls.as_ref();
        let has_certificate = tls.is_some_and(|tls| tls.peer.is_some());
        let asked = Asked::new(head, has_certificate, &mut random);
        table.route(&asked).cloned()
    }

    /// Finds the route, and of several clusters one.
    fn choose(&self, head: &mut RequestHead, chosen: &mut Chosen) {
        if let Some(table) = self.manager.routes.load(head) {
            table.remove_internal_headers(&mut head.headers);
            chosen.route = self.route_in(&table, head);
        }
        let Some(route) = &chosen.route else {
            return;
        };
        let mut info = self.info.borrow_mut();
        info.route_name = Some(route.name.clone());
        chosen.decorator = head::decorate_request(&self.manager, route, head);
        let Action::Forward(forward) = &route.action else {
            return;
        };
        let hash = || forward.hash.hash(head, &info).hash;
        chosen.target = forward.draw(head, &mut self.random.borrow_mut(), hash);
        if let Some(limit) = forward.config.idle_timeout {
            self.limits.set_idle(limit);
        }
        chosen.is_over = router::limit_duration(self, route, forward, head);
        let target = chosen.target.and_then(|index| forward.targets.get(index));
        if let Some((name, cluster)) = target.and_then(|target| target.cluster.find(head)) {
            info.upstream_cluster_raw = Some(name.clone());
            chosen.cluster_name = Some(name);
            chosen.cluster = cluster;
        }
        if let Some(cluster) = &chosen.cluster {
            info.upstream_cluster = Some(cluster.stat_name.clone());
            info.destination = Some(cluster.destination.clone());
        }
    }

    /// Makes the header changes of a request that is forwarded.
    fn change_request(&self, chosen: &Chosen, head: &mut RequestHead) {
        let info = self.info.borrow();
        let target = chosen.target();
        if let Some(changes) = target.and_then(|target| target.changes.as_ref()) {
            changes.request.change_request(head, &info);
        }
        if let Some(host) = target.and_then(|target| target.host.as_ref()) {
            head.authority = host.clone();
        }
        for changes in chosen.route.iter().flat_map(|route| &route.changes) {
            changes.request.change_request(head, &info);
        }
    }

    pub(super) fn no_route(&self) -> LocalReply {
        self.manager.stats.no_route.inc();
        LocalReply::new(
            StatusCode::NOT_FOUND,
            Some(ResponseFlag::NoRouteFound),
            "route_not_found",
            "",
        )
    }

    fn rewrite(&self, route: &Route, head: &mut RequestHead) -> Result<(), LocalReply> {
        let rewritten = route.rewritten_path(head, &self.info.borrow());
        match rewritten {
            Ok(None) => {}
            Ok(Some(path)) => {
                let original = HeaderValue::from_str(head.path.as_str()).ok();
                // What goes up gets it with the router's other headers; what is redirected has it for the log.
                if let (Action::Redirect(_), Some(original)) = (&route.action, &original)
                    && !self.manager.config.router.suppress_envoy_headers
                {
                    head.headers.insert(router::ORIGINAL_PATH, original.clone());
                }
                *self.original_path.borrow_mut() = original;
                head.path = path;
            }
            Err(InvalidPath) => {
                let details = "rewritten_path_invalid";
                return Err(LocalReply::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    None,
                    details,
                    "",
                ));
            }
        }
        Ok(())
    }
}
