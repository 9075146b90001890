//! The serial line's ends on the host.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use trapline_devices::platform::output::Output;
use trapline_devices::platform::uart::Input;

use super::create;
use crate::config::Serial;

/// Where the line's output goes; no line at all for [`Serial::None`].
pub(super) fn output(serial: &Serial) -> Result<Option<Output>> {
    Ok(match serial {
        Serial::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
            Some(Output::descriptor(stdout))
        }
        Serial::File(path) => Some(Output::new(Box::new(create("serial", path)?))),
        Serial::None => None,
    })
}

/// Takes standard input to the line until it ends. The thread ends with the process: a read from a
/// terminal can not be called back.
pub(super) fn feed(input: Input) -> Result<()> {
    let read = move || {
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            send(&input, bytes.get(..count).unwrap_or_default());
        }
    };
    std::thread::Builder::new()
        .name("serial-input".into())
        .spawn(read)
        .map(drop)
        .context("cannot start the thread that reads the serial line's input")
}

/// Sends all of `bytes`, at the pace at which the guest reads.
fn send(input: &Input, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = input.send(bytes);
        bytes = bytes.get(taken..).unwrap_or_default();
        if taken == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
