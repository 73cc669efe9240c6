//! Prints what a control plane sends: `watch [--sotw] ADDRESS NODE_ID TYPE_URL [NAME…]`; without names, everything of the type.
//!
//! `cargo run -p xds-client --example watch -- 127.0.0.1:15010 sidecar~10.0.0.1~a.b~b.svc.cluster.local \
//!     type.googleapis.com/envoy.config.cluster.v3.Cluster`

use std::process::ExitCode;
use std::time::Duration;

use xds_client::{
    Client, ConnectionEvent, Handler, Node, Protocol, Rejection, Subscriptions, Transport, TransportError,
    Update, WILDCARD,
};

struct Printer;

impl Handler for Printer {
    fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        println!("{} {}", update.type_url, update.version);
        for resource in &update.added {
            println!("  + {} ({} bytes)", resource.name, resource.any.value.len());
        }
        for name in &update.removed {
            println!("  - {name}");
        }
        Ok(())
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        if let ConnectionEvent::Disconnected { reason, retry_in, .. } = event {
            println!("{reason}; again in {retry_in:?}");
        }
    }
}

fn prepare(
    protocol: Protocol,
    address: &str,
    id: &str,
    type_url: &str,
    names: &[String],
) -> Result<Client, TransportError> {
    let transport = Transport::new(address.parse()?)?.with_connect_timeout(Duration::from_secs(5));
    let mut wishes = Subscriptions::default();
    let names = if names.is_empty() {
        &[WILDCARD.to_owned()]
    } else {
        names
    };
    wishes.set_names(type_url, names.iter().cloned().collect());
    let node = Node {
        id: id.to_owned(),
        ..Node::default()
    };
    Ok(Client::new(transport, protocol, node, wishes, || fastrand::u64(..)).0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let protocol = if arguments.first().is_some_and(|first| first == "--sotw") {
        arguments.remove(0);
        Protocol::sotw_ads()
    } else {
        Protocol::delta_ads()
    };
    let [address, id, type_url, names @ ..] = arguments.as_slice() else {
        eprintln!("usage: watch [--sotw] ADDRESS NODE_ID TYPE_URL [NAME...]");
        return ExitCode::from(2);
    };
    match prepare(protocol, address, id, type_url, names) {
        Ok(client) => match client.run(Printer).await {},
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
