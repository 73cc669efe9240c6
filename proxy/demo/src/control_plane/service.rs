//! ADS over gRPC: reads requests, hands them to the [`ControlPlane`].

use std::pin::Pin;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::Stream;
use tokio::sync::mpsc::{self, Receiver};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::ControlPlane;
use super::stream::{Asked, Outlet};

/// Responses that may wait for a client that does not read.
const QUEUE: usize = 1024;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl AggregatedDiscoveryService for ControlPlane {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(read(self.clone(), Outlet::Sotw(sender), request.into_inner()));
        Ok(Response::new(responses(receiver)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(read(self.clone(), Outlet::Delta(sender), request.into_inner()));
        Ok(Response::new(responses(receiver)))
    }
}

async fn read<M: Into<Asked>>(control_plane: ControlPlane, outlet: Outlet, mut requests: Streaming<M>) {
    let stream = control_plane.opened(outlet);
    while let Ok(Some(request)) = requests.message().await {
        control_plane.asked(stream, request.into());
    }
    control_plane.closed(stream);
}

fn responses<T: Send + 'static>(receiver: Receiver<Result<T, Status>>) -> Responses<T> {
    Box::pin(futures_util::stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|response| (response, receiver)) },
    ))
}
