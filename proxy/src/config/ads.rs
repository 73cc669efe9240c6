//! The ADS stream's handler: hands responses to [`Control`] and tells the secret streams what is wanted.
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use outrigger_model::decode::{CLUSTER_TYPE, LISTENER_TYPE};
use xds_client::{Backoff, ConnectionEvent, Handler, Rejection, Subscriptions, Update};

use super::control::Control;
use super::sds::SecretStreams;
use crate::stats::{Gauge, Registry};

/// First and longest wait between attempts to reach the control plane, each drawn with full jitter. Envoy goes up to 30 s; a control
/// plane that comes back with a change has to be heard within 2 s (see docs/adr/0007-reconnect.md).
const RECONNECT_BASE: Duration = Duration::from_millis(200);
const RECONNECT_CAP: Duration = Duration::from_millis(1500);

/// The waits of every stream to a control plane.
pub(crate) fn reconnect() -> Backoff {
    Backoff::new(RECONNECT_BASE, RECONNECT_CAP)
}

/// The subscriptions of a new session: clusters first, as Envoy.
pub(crate) fn subscriptions(cds: bool, lds: bool) -> Subscriptions {
    let mut subscriptions = Subscriptions::default();
    if cds {
        subscriptions.wildcard(CLUSTER_TYPE);
    }
    if lds {
        subscriptions.wildcard(LISTENER_TYPE);
    }
    subscriptions
}

/// The handler.
pub(crate) struct AdsHandler {
    control: Rc<RefCell<Control>>,
    secrets: Rc<SecretStreams>,
    connected: Gauge,
}

impl AdsHandler {
    /// For one session.
    pub(crate) fn new(
        control: Rc<RefCell<Control>>,
        secrets: Rc<SecretStreams>,
        registry: &Registry,
    ) -> Self {
        Self {
            control,
            secrets,
            connected: registry.gauge("control_plane.connected_state"),
        }
    }
}

impl Handler for AdsHandler {
    fn on_update(&mut self, update: Update, subscriptions: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        let result = self.control.borrow_mut().apply(update, subscriptions);
        let wanted = self.control.borrow().wanted_secrets();
        self.secrets.update(&wanted);
        result
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Connected => self.connected.set(1),
            ConnectionEvent::Disconnected { .. } => {
                self.connected.set(0);
                self.control.borrow().unreachable();
            }
            _ => {}
        }
    }
}
