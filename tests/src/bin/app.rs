//! The application of a pod: `e2e-app ADDRESS:PORT VERSION`, see `outrigger_demo::app`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(version), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: e2e-app ADDRESS:PORT VERSION".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(&address).await?;
        Ok(outrigger_demo::app::serve(listener, &version).await?)
    })
}
