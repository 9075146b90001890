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

/// Listens on a socket and serves, or serves the client on standard input.
fn serve(config: &AdapterConfig) -> anyhow::Result<()> {
    let rom = config.rom.as_deref();
    match config.socket.as_os_str() == "-" {
        true => crate::adapter::serve_stdin(rom),
        false => crate::adapter::serve_at(&config.socket, rom),
    }
}
