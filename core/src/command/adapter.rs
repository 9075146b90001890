//! `trapline adapter`: the software VGA adapter as a vfio-user server.

use std::sync::mpsc::channel;

use anyhow::Context;

use super::Status;
use super::signals::{EndingSignals, leave_to_parent};
use crate::config::{AdapterConfig, AdapterOptions};
use crate::sandbox::Kind;

/// Serves until a signal ends it; at standard input until its client goes, and no signal does.
pub(super) fn adapter(options: AdapterOptions) -> anyhow::Result<Status> {
    let config = AdapterConfig::new(options)?;
    config.seccomp.prepare();
    super::log::start();
    let rom = config.rom.as_deref();
    if config.socket.as_os_str() == "-" {
        leave_to_parent().context("signals cannot be taken over")?;
        crate::adapter::serve_stdin(rom, config.seccomp)?;
        return Ok(Status::Success);
    }
    let mut offer = crate::adapter::Offer::at(&config.socket, rom)?;
    let (stop, (tell, told)) = (offer.stop_handle(), channel());
    let first = move |signal| {
        // The receiver lives as long as the program serves.
        let _ = tell.send(signal);
        stop.stop();
    };
    let _signals = EndingSignals::confined(config.seccomp, first).context("signals cannot be taken over")?;
    config.seccomp.confine(Kind::Adapter);
    offer.serve()?;
    Ok(told.try_recv().map_or(Status::Success, Status::Signal))
}
