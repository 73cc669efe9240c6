//! The application of a pod: `e2e-app VERSION ADDRESS:PORT…`, see `outrigger_demo::app`.

use std::error::Error;

use tokio::task::JoinSet;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(version), addresses) = (arguments.next(), arguments.collect::<Vec<_>>()) else {
        return Err("usage: e2e-app VERSION ADDRESS:PORT…".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut servers = JoinSet::new();
        for address in addresses {
            let listener = tokio::net::TcpListener::bind(&address).await?;
            let version = version.clone();
            servers.spawn(async move { outrigger_demo::app::serve(listener, &version).await });
        }
        while let Some(ended) = servers.join_next().await {
            ended??;
        }
        Ok(())
    })
}
