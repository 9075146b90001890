//! The serial line's ends on the host.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use trapline_devices::platform::output::Output;
use trapline_devices::platform::uart::Input;

use crate::config::{Seccomp, Serial};
use crate::outlet;
use crate::sandbox::Kind;

/// Where the line's output goes; no line at all for [`Serial::None`].
pub(super) fn output(serial: &Serial) -> Result<Option<Output>> {
    Ok(match serial {
        Serial::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
            Some(Output::descriptor(stdout).named("standard output"))
        }
        Serial::File(path) => Some(to_file("serial", path)?),
        Serial::None => None,
    })
}

/// The file that `option` names, for what a text device says. It may be a pipe or a terminal, which can
/// stop taking: then the guest is held up for a moment only, and the run can end. A pipe must have a reader.
pub(super) fn to_file(option: &str, path: &Path) -> Result<Output> {
    let name = format!("--{option} {}", path.display());
    let file = outlet::lines(path).with_context(|| name.clone())?;
    Ok(Output::descriptor(file.into()).named(name))
}

/// Takes standard input to the line until it ends. The thread ends with the process: a read from a
/// terminal cannot be called back.
pub(super) fn feed(input: Input, seccomp: Seccomp) -> Result<()> {
    let read = move || {
        seccomp.confine(Kind::SerialInput);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    use parking_lot::Mutex;

    #[test]
    fn a_missing_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = to_file("serial", &folder.path().join("no/log")).unwrap_err();
        let wanted = format!("there is no directory {}/no; create it first", folder.path().display());
        assert_eq!(error.root_cause().to_string(), wanted);
    }

    #[test]
    fn a_pipe_without_a_reader_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = format!("{:#}", to_file("debugcon", &pipe).unwrap_err());
        let wanted = format!("--debugcon {}: nobody reads this pipe; start its reader first", pipe.display());
        assert_eq!(error, wanted);
    }

    #[test]
    fn a_full_disk_is_told_once_and_how_much_was_lost_at_the_end() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&log);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Lines(Arc::clone(&writer)))
            .finish();
        let told = || String::from_utf8(log.lock().clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let mut output = to_file("serial", Path::new("/dev/full")).unwrap();
            b"one\ntwo\nth".iter().for_each(|byte| output.push(*byte));
            assert_eq!(told().lines().count(), 1, "{}", told());
            assert!(told().contains("WARN") && told().contains("--serial /dev/full: "), "{}", told());
            drop(output);
        });
        assert_eq!(told().lines().count(), 2, "{}", told());
        assert!(told().trim_end().ends_with("--serial /dev/full: 10 bytes were lost"), "{}", told());
    }

    /// Log lines as they come.
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_hold_the_guest_up_for_ever() {
        let (_reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd()).into();
        let (told, tells) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut output = output(&Serial::File(path)).unwrap().unwrap();
            [b'x'; 200_000].iter().for_each(|byte| output.push(*byte));
            told.send(output.lost()).unwrap();
        });
        let lost = tells.recv_timeout(Duration::from_secs(10)).expect("the guest hangs");
        assert!(lost > 0);
    }
}
