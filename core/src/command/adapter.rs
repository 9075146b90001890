//! `trapline adapter`: the software VGA adapter as a vfio-user server.

use super::Status;
use crate::config::{AdapterConfig, AdapterOptions};

/// Serves one client and ends with it.
pub(super) fn adapter(options: AdapterOptions) -> anyhow::Result<Status> {
    let config = AdapterConfig::new(options)?;
    super::log::start();
    serve(&config)?;
    Ok(Status::Success)
}

/// Makes the adapter, listens on its socket and serves.
fn serve(config: &AdapterConfig) -> anyhow::Result<()> {
    anyhow::bail!("the adapter on {} can not be served: this build has none", config.socket.display())
}
