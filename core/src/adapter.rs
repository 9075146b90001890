//! The software VGA adapter in a process of its own: with no GPU in the machine it is what a card
//! would be, behind the same path.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use trapline_devices::vfio_user::server::{Description, IrqType, Memory, RegionDescription, Server, Stop};
use trapline_devices::vga::{self, Adapter};
use trapline_io::Region;

use crate::sandbox::{Kind, Seccomp};
use crate::screen::{Cell, Frame, Source, TextScreen};

/// How long the process may take to end after its connection is gone.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes an adapter whose expansion ROM is `rom`, the distribution's VBIOS if there is none given.
///
/// # Errors
/// The image cannot be had or does not fit.
fn make(rom: Option<&Path>) -> Result<Adapter> {
    let path = match rom {
        Some(path) => path.to_owned(),
        None => vga::find_rom()?,
    };
    let image = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Adapter::new(Some(image)).with_context(|| path.display().to_string())
}

/// The software adapter at a socket.
#[derive(Debug)]
pub struct Offer {
    adapter: Adapter,
    server: Server,
}

impl Offer {
    /// Makes an adapter and its socket, which is removed again with this value.
    ///
    /// # Errors
    /// No ROM, or the socket cannot be had.
    pub fn at(socket: &Path, rom: Option<&Path>) -> Result<Offer> {
        let adapter = make(rom)?;
        let server = Server::bind(socket, describe(&adapter)?)?;
        Ok(Offer { adapter, server })
    }

    /// Ends [`Offer::serve`] from any thread.
    pub fn stop_handle(&self) -> Stop {
        self.server.stop_handle()
    }

    /// Serves one client after the other until it is stopped.
    ///
    /// # Errors
    /// The socket failed.
    pub fn serve(&mut self) -> Result<()> {
        Ok(self.server.run(&mut self.adapter)?)
    }
}

/// Offers the software adapter to the one client that is connected to standard input, until it goes.
///
/// # Errors
/// No ROM, or standard input is no socket.
pub fn serve_stdin(rom: Option<&Path>, seccomp: Seccomp) -> Result<()> {
    let stdin = std::io::stdin();
    let socket = UnixStream::from(stdin.as_fd().try_clone_to_owned().context("standard input")?);
    if socket.local_addr().is_err() {
        bail!("--socket - needs standard input to be a connected Unix socket");
    }
    let mut adapter = make(rom)?;
    let server = Server::unbound(describe(&adapter)?)?;
    seccomp.confine(Kind::Adapter);
    server
        .serve(socket, &mut adapter)
        .map_err(|broken| anyhow::anyhow!("connection ended: {}", broken.reason()))
}

/// What clients are told: the regions as VFIO numbers them, and the screen behind them.
fn describe(adapter: &Adapter) -> Result<Description> {
    let shared = |shared: &vga::Shared| -> Result<Memory> {
        Ok(Memory { file: Arc::new(OwnedFd::from(shared.file().try_clone()?)), offset: 0, areas: None })
    };
    let mut regions = Vec::new();
    for number in 0..=vga::SCREEN.0 {
        let size = vga::region_size(Region(number)).unwrap_or(0);
        let description = match Region(number) {
            _ if size == 0 => RegionDescription::default(),
            Region::ROM => RegionDescription::read_only(size),
            vga::SCREEN => {
                let memory = Some(shared(adapter.screen())?);
                RegionDescription { memory, ..RegionDescription::read_only(size) }
            }
            region if region == Region::bar(0) => {
                RegionDescription::memory(size, shared(adapter.framebuffer())?)
            }
            _ => RegionDescription::registers(size),
        };
        regions.push(description);
    }
    // VFIO's five types, all empty: the adapter interrupts nobody.
    Ok(Description { regions, irqs: vec![IrqType::default(); 5], resettable: true })
}

/// The adapter's process. It ends by itself when its connection is closed, so also when this process
/// is killed.
#[derive(Debug)]
pub struct Process(std::process::Child);

impl Process {
    /// Starts the process and gives the connection to it.
    ///
    /// # Errors
    /// There is no VBIOS, or the system refuses.
    pub fn start(seccomp: Seccomp) -> Result<(Process, UnixStream)> {
        let rom = vga::find_rom()?;
        let (ours, theirs) = UnixStream::pair().context("no socket for the adapter's process")?;
        let program = std::env::current_exe().context("cannot find the program's own file")?;
        let child = Command::new(program)
            .args(["adapter", "--socket", "-", "--rom"])
            .arg(rom)
            .args(["--seccomp", seccomp.word()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C at the terminal is for the machine, which then closes the connection.
            .process_group(0)
            .spawn()
            .context("cannot start the adapter's process")?;
        Ok((Process(child), ours))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            match self.0.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                _ => return,
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The screen of a software adapter, in the terms of [`crate::screen`].
#[derive(Debug)]
pub struct Display(pub vga::View);

impl Source for Display {
    fn text(&mut self) -> Option<TextScreen> {
        let text = self.0.text().ok()??;
        let cell = |cell: &vga::scanout::Cell| Cell { ch: cell.character(), attribute: cell.attribute };
        Some(TextScreen {
            columns: text.columns,
            rows: text.rows,
            cells: text.cells.iter().map(cell).collect(),
            cursor: text.cursor,
        })
    }

    fn frame(&mut self) -> Option<Frame> {
        let on = vga::scanout::mode(&self.0.snapshot().ok()?) != vga::scanout::Mode::Off;
        self.0.frame().ok().filter(|_| on)
    }
}
