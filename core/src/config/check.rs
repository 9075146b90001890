//! From text to values, and the file's values under those of the command line.

use std::path::PathBuf;
use std::time::Duration;

use super::device::{self, Adapters, AssignedDevice, Choice, Disk};
use super::error::{ConfigError, Origin};
use super::identity::{self, Identity};
use super::keys::Script;
use super::options::{AdapterOptions, Options};
use super::trace::{self, TraceFilter, TraceOutput};
use super::words::Words;
use super::{
    AdapterConfig, Interface, Io, Linux, Pages, ReportFiles, RunConfig, Screen, Seccomp, Serial, TextOutput,
    Window, report, size,
};

/// The longest `--timeout`, in seconds: about 31 years.
const TIMEOUT_LONGEST: f64 = 1e9;
/// The longest kernel command line, in bytes: what x86 Linux reads of it, without its NUL.
const APPEND_LONGEST: usize = 2047;
/// The largest configuration file that is read, in bytes.
const FILE_LARGEST: u64 = 1 << 20;

impl RunConfig {
    /// Checks `cli` and the options of a configuration file, and joins them; what is given in neither takes
    /// its default. A list (devices, disks) of the command line replaces the file's.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used, and why. A value of the file is an error even where the command line
    /// overrides it.
    pub fn new(cli: Options, file: Option<(Origin, Options)>) -> Result<Self, ConfigError> {
        let mut given = Checked::new(&Origin::CommandLine, cli)?;
        if let Some((origin, options)) = file {
            given = given.or(Checked::new(&origin, options)?);
        }
        given.finish()
    }

    /// Like [`RunConfig::new`], with the configuration file still to be read.
    ///
    /// # Errors
    ///
    /// As there, and a file that cannot be read or is not TOML. Blocks on reading the file.
    pub fn load(cli: Options, file: Option<&str>) -> Result<Self, ConfigError> {
        let file = file.map(read_file).transpose()?;
        Self::new(cli, file)
    }
}

impl AdapterConfig {
    /// Checks the options of `trapline adapter`.
    ///
    /// # Errors
    ///
    /// A path that cannot be one, a word that is none.
    pub fn new(options: AdapterOptions) -> Result<Self, ConfigError> {
        let empty = |option: &str| ConfigError::option(&Origin::CommandLine, option, "the file is not named");
        if options.socket.as_os_str().is_empty() {
            return Err(empty("socket"));
        }
        if options.rom.as_ref().is_some_and(|rom| rom.as_os_str().is_empty()) {
            return Err(empty("rom"));
        }
        let at = Checker { origin: &Origin::CommandLine, option: "seccomp" };
        let wanted = at.value(options.seccomp, Words::parse)?;
        Ok(Self { socket: options.socket, rom: options.rom, seccomp: wanted.unwrap_or(Seccomp::DEFAULT) })
    }
}

fn read_file(path: &str) -> Result<(Origin, Options), ConfigError> {
    use std::io::Read;

    let mut text = String::new();
    let length = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LARGEST + 1).read_to_string(&mut text))
        .map_err(|error| ConfigError::file(path, crate::config::host_error(&error)))?;
    if u64::try_from(length).is_ok_and(|length| length > FILE_LARGEST) {
        return Err(ConfigError::file(path, "more than 1 MiB; this is no configuration file"));
    }
    let options = Options::from_toml(&text).map_err(|problem| ConfigError::file(path, problem))?;
    Ok((Origin::File(path.into()), options))
}

/// The values that one source gives.
#[derive(Default)]
struct Checked {
    adapters: Option<Adapters>,
    cpus: Option<u8>,
    memory: Option<u64>,
    pages: Option<(Pages, Origin)>,
    phys_bits: Option<u8>,
    vfio: Option<Interface>,
    identity: Option<Identity>,
    firmware: Option<PathBuf>,
    disks: Option<Vec<Disk>>,
    kernel: Option<PathBuf>,
    /// With the place it was given, for an error that only the joined values can show.
    initrd: Option<(PathBuf, Origin)>,
    append: Option<(String, Origin)>,
    serial: Option<Serial>,
    debugcon: Option<PathBuf>,
    screen: Option<Screen>,
    screenshot: Option<PathBuf>,
    screen_text: Option<TextOutput>,
    report: Option<ReportFiles>,
    timeout: Option<Duration>,
    io: Option<Io>,
    /// With the place it was given, for an error that only the joined values can show.
    window: Option<(Window, Origin)>,
    keys: Option<Script>,
    trace: Option<TraceOutput>,
    trace_filters: Option<(Vec<TraceFilter>, Origin)>,
    seccomp: Option<Seccomp>,
}

impl Checked {
    fn new(origin: &Origin, options: Options) -> Result<Self, ConfigError> {
        let at = |option| Checker { origin, option };
        let with_origin = |text| (text, origin.clone());
        Ok(Self {
            adapters: at("device").adapters(&options.device)?,
            cpus: at("cpus").value(options.cpus, cpus)?,
            memory: at("memory").value(options.memory, size::memory)?,
            pages: at("hugepages")
                .value(options.hugepages, size::pages)?
                .map(|pages| (pages, origin.clone())),
            phys_bits: at("phys-bits").value(options.phys_bits, size::phys_bits)?,
            vfio: at("vfio").value(options.vfio, Words::parse)?,
            identity: at("identity").value(options.identity, identity::parse)?,
            firmware: at("firmware").value(options.firmware, file)?,
            disks: at("disk").list(&options.disk, device::disk)?,
            kernel: at("kernel").value(options.kernel, file)?,
            initrd: at("initrd").value(options.initrd, file)?.map(|path| (path, origin.clone())),
            append: at("append").value(options.append, append)?.map(with_origin),
            serial: at("serial").value(options.serial, serial)?,
            debugcon: at("debugcon").value(options.debugcon, file)?,
            screen: at("screen").value(options.screen, Words::parse)?,
            screenshot: at("screenshot").value(options.screenshot, file)?,
            screen_text: at("screen-text").value(options.screen_text, text_output)?,
            report: at("report").value(options.report, report::files)?,
            timeout: at("timeout").value(options.timeout, timeout)?,
            io: at("io").value(options.io, Words::parse)?,
            window: at("window").value(options.window, Words::parse)?.map(|window| (window, origin.clone())),
            keys: at("keys").value(options.keys, |text| text.parse())?,
            trace: at("trace").value(options.trace, trace::output)?,
            trace_filters: at("trace-filter")
                .list(&options.trace_filter, trace::filter)?
                .map(|filters| (filters, origin.clone())),
            seccomp: at("seccomp").value(options.seccomp, Words::parse)?,
        })
    }

    /// These values, and `under` where there is none.
    fn or(self, under: Self) -> Self {
        Self {
            adapters: self.adapters.or(under.adapters),
            cpus: self.cpus.or(under.cpus),
            memory: self.memory.or(under.memory),
            pages: self.pages.or(under.pages),
            phys_bits: self.phys_bits.or(under.phys_bits),
            vfio: self.vfio.or(under.vfio),
            identity: self.identity.or(under.identity),
            firmware: self.firmware.or(under.firmware),
            disks: self.disks.or(under.disks),
            kernel: self.kernel.or(under.kernel),
            initrd: self.initrd.or(under.initrd),
            append: self.append.or(under.append),
            serial: self.serial.or(under.serial),
            debugcon: self.debugcon.or(under.debugcon),
            screen: self.screen.or(under.screen),
            screenshot: self.screenshot.or(under.screenshot),
            screen_text: self.screen_text.or(under.screen_text),
            report: self.report.or(under.report),
            timeout: self.timeout.or(under.timeout),
            io: self.io.or(under.io),
            window: self.window.or(under.window),
            keys: self.keys.or(under.keys),
            trace: self.trace.or(under.trace),
            trace_filters: self.trace_filters.or(under.trace_filters),
            seccomp: self.seccomp.or(under.seccomp),
        }
    }

    fn finish(mut self) -> Result<RunConfig, ConfigError> {
        let linux = self.linux()?;
        let memory = self.memory.unwrap_or(1 << 30);
        let adapters = self.adapters.take().unwrap_or(Adapters::Software);
        self.go_together(memory, &adapters)?;
        Ok(RunConfig {
            adapters,
            cpus: self.cpus.unwrap_or(1),
            memory,
            pages: self.pages.map(|(pages, _)| pages).unwrap_or_default(),
            phys_bits: self.phys_bits,
            vfio: self.vfio.unwrap_or(Interface::DEFAULT),
            identity: self.identity.unwrap_or_default(),
            firmware: self.firmware,
            disks: self.disks.unwrap_or_default(),
            linux,
            serial: self.serial.unwrap_or(Serial::None),
            debugcon: self.debugcon,
            screen: self.screen.unwrap_or(Screen::DEFAULT),
            screenshot: self.screenshot,
            screen_text: self.screen_text,
            report: self.report,
            timeout: self.timeout,
            io: self.io.unwrap_or(Io::DEFAULT),
            window: self.window.map_or(Window::DEFAULT, |(window, _)| window),
            keys: self.keys,
            trace: self.trace,
            trace_filters: self.trace_filters.map(|(filters, _)| filters).unwrap_or_default(),
            seccomp: self.seccomp.unwrap_or(Seccomp::DEFAULT),
        })
    }
    /// The kernel with what goes with it, taken out of these values.
    fn linux(&mut self) -> Result<Option<Linux>, ConfigError> {
        let (initrd, append) = (self.initrd.take(), self.append.take());
        if let Some(kernel) = self.kernel.take() {
            let append = append.map(|(text, _)| text).unwrap_or_default();
            return Ok(Some(Linux { kernel, initrd: initrd.map(|(path, _)| path), append }));
        }
        let initrd = initrd.map(|(_, origin)| (origin, "initrd"));
        match initrd.or(append.map(|(_, origin)| (origin, "append"))) {
            Some((origin, option)) => {
                Err(ConfigError::option(&origin, option, "is for a kernel; give --kernel FILE too"))
            }
            None => Ok(None),
        }
    }

    /// An error if one of these values makes no sense beside another.
    fn go_together(&self, memory: u64, adapters: &Adapters) -> Result<(), ConfigError> {
        if let Some((pages, origin)) = &self.pages
            && let Some(problem) = size::misfit(memory, *pages)
        {
            return Err(ConfigError::option(origin, "hugepages", &problem));
        }
        if let Some((window, origin)) = &self.window
            && let Some(problem) = device::misfit(adapters, *window)
        {
            return Err(ConfigError::option(origin, "window", &problem));
        }
        if adapters.only_cards_show()
            && let Some((option, advice)) = self.needs_screen()
        {
            let problem =
                format!("the screen is the assigned card's own, which trapline cannot see; {advice}");
            return Err(ConfigError::option(&Origin::CommandLine, option, &problem));
        }
        if let (None, Some((_, origin))) = (&self.trace, &self.trace_filters) {
            return Err(ConfigError::option(origin, "trace-filter", "is for a trace; give --trace FILE too"));
        }
        Ok(())
    }

    /// An option that looks at the screen, and what to do without one.
    fn needs_screen(&self) -> Option<(&'static str, &'static str)> {
        match () {
            () if self.screenshot.is_some() => Some(("screenshot", "leave it out")),
            () if self.screen_text.is_some() => Some(("screen-text", "leave it out")),
            () if self.keys.as_ref().is_some_and(Script::watches) => {
                Some(("keys", "give <wait:SECONDS> for <wait-text:..>"))
            }
            () => None,
        }
    }
}

/// Turns what a parser says of a value into an error that names option and value.
struct Checker<'a> {
    origin: &'a Origin,
    option: &'static str,
}

impl Checker<'_> {
    fn parse<T>(&self, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        parse(text).map_err(|problem| ConfigError::value(self.origin, self.option, text, problem))
    }

    fn value<T>(
        &self,
        text: Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        text.map(|text| self.parse(&text, parse)).transpose()
    }

    /// A list; one that is empty counts as not given.
    fn list<T>(
        &self,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let all: Vec<T> = texts.iter().map(|text| self.parse(text, &parse)).collect::<Result<_, _>>()?;
        Ok(if all.is_empty() { None } else { Some(all) })
    }

    fn adapters(&self, texts: &[String]) -> Result<Option<Adapters>, ConfigError> {
        let Some(choices) = self.list(texts, device::device)? else { return Ok(None) };
        let count = choices.len();
        let mut devices: Vec<AssignedDevice> = Vec::with_capacity(count);
        for choice in choices {
            match choice {
                Choice::Device(device) => {
                    if devices.iter().any(|other| other.origin == device.origin) {
                        return Err(self.option_error(&format!("{} is given twice", device.origin)));
                    }
                    devices.push(device);
                }
                Choice::None if count == 1 => return Ok(Some(Adapters::None)),
                Choice::None => {
                    return Err(self.option_error("none cannot be given together with another device"));
                }
            }
        }
        Ok(Some(Adapters::Given(devices)))
    }

    fn option_error(&self, problem: &str) -> ConfigError {
        ConfigError::option(self.origin, self.option, problem)
    }
}

fn cpus(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a number of processors; give 1 to 255".into()),
        Ok(count) => Ok(count),
    }
}

fn file(text: &str) -> Result<PathBuf, String> {
    device::path(text, "the file is not named")
}

fn append(text: &str) -> Result<String, String> {
    if text.len() > APPEND_LONGEST {
        return Err(format!("{} bytes; a kernel reads at most {APPEND_LONGEST}", text.len()));
    }
    if text.contains('\0') {
        return Err("a kernel command line cannot hold a NUL".into());
    }
    Ok(text.to_owned())
}

fn serial(text: &str) -> Result<Serial, String> {
    match text {
        "stdio" => Ok(Serial::Stdio),
        "none" => Ok(Serial::None),
        _ => device::path(text, "give stdio, none or a file").map(Serial::File),
    }
}

fn text_output(text: &str) -> Result<TextOutput, String> {
    match text {
        "-" => Ok(TextOutput::Stdout),
        _ => file(text).map(TextOutput::File),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let problem = || "not a time; give seconds above 0, as in 2.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| problem())?;
    if !(seconds > 0.0 && seconds <= TIMEOUT_LONGEST) {
        return Err(problem());
    }
    // What is above 0 but rounds to no time at all is no time to wait either.
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero()).ok_or_else(problem)
}
