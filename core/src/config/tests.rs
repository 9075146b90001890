use std::path::PathBuf;
use std::time::Duration;

use trapline_devices::platform::keyboard::{Key, KeyCode};
use trapline_io::{Port, Span};

use super::*;

mod adapter;

fn cli(set: impl FnOnce(&mut Options)) -> Result<RunConfig, String> {
    let mut options = Options::default();
    set(&mut options);
    RunConfig::new(options, None).map_err(|error| error.to_string())
}

fn toml(text: &str) -> Result<RunConfig, String> {
    let options = Options::from_toml(text)?;
    RunConfig::new(Options::default(), Some((Origin::File("vm.toml".into()), options)))
        .map_err(|error| error.to_string())
}

/// Sets the option of a name, as TOML would.
fn with(option: &str, value: &str) -> Result<RunConfig, String> {
    let options = Options::from_toml(&format!("{option} = {value:?}")).unwrap();
    RunConfig::new(options, None).map_err(|error| error.to_string())
}

fn given(socket: &str, vga: Vga, rom: Rom) -> Adapters {
    Adapters::Given(vec![AssignedDevice {
        origin: DeviceOrigin::Socket(socket.into()),
        vga,
        rom,
        root_port: None,
        messages: Messages::Guest,
        phase: Phase::Auto,
        identity: None,
        gpudirect_clique: None,
        arbiter: Arbitration::Auto,
    }])
}

#[test]
fn nothing_given_is_a_small_machine_with_the_software_adapter() {
    let config = cli(|_| {}).unwrap();
    let expected = RunConfig {
        adapters: Adapters::Software,
        cpus: 1,
        memory: 1 << 30,
        pages: Pages::Transparent,
        phys_bits: None,
        vfio: Interface::Auto,
        identity: Identity::Off,
        firmware: None,
        disks: Vec::new(),
        linux: None,
        serial: Serial::None,
        debugcon: None,
        screen: Screen::Auto,
        screenshot: None,
        screen_text: None,
        report: None,
        timeout: None,
        io: Io::Adaptive,
        window: Window::Auto,
        keys: None,
        trace: None,
        trace_filters: Vec::new(),
        seccomp: Seccomp::On,
    };
    assert_eq!(config, expected);
}

#[test]
fn sizes_of_memory_are_read() {
    let cases = [
        ("16M", 16 << 20),
        ("16777216", 16 << 20),
        ("16384K", 16 << 20),
        ("512m", 512 << 20),
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("2gib", 2 << 30),
        ("4T", 4 << 40),
        ("20480K", 20480 << 10),
    ];
    for (text, bytes) in cases {
        assert_eq!(with("memory", text).map(|config| config.memory), Ok(bytes), "{text}");
    }
}

#[test]
fn devices_are_read() {
    let file = |path: &str| Rom::File(path.into());
    let cases = [
        ("none", Adapters::None),
        ("vfio-user:/run/a", given("/run/a", Vga::Auto, Rom::Device)),
        ("vfio-user:a,vga=on", given("a", Vga::On, Rom::Device)),
        ("vfio-user:a,vga=auto", given("a", Vga::Auto, Rom::Device)),
        ("vfio-user:a,rom=off,vga=off", given("a", Vga::Off, Rom::Off)),
        ("vfio-user:a,,b,rom=c,,d=e", given("a,b", Vga::Auto, file("c,d=e"))),
    ];
    for (text, adapters) in cases {
        assert_eq!(with("device", text).map(|config| config.adapters), Ok(adapters), "{text}");
    }
}

#[test]
fn functions_of_the_host_are_read() {
    let function = |address: &str, vga, rom, root_port| {
        let origin = DeviceOrigin::Host(address.parse().unwrap());
        let Adapters::Given(mut devices) = given("a", vga, rom) else { panic!("one is given") };
        devices.iter_mut().for_each(|device| (device.origin, device.root_port) = (origin.clone(), root_port));
        Adapters::Given(devices)
    };
    let cases = [
        ("01:00.0", function("0000:01:00.0", Vga::Auto, Rom::Device, None)),
        ("vfio:0001:0a:1f.7", function("0001:0a:1f.7", Vga::Auto, Rom::Device, None)),
        ("0000:01:00.1,rom=off,root-port=off,vga=off", function("01:00.1", Vga::Off, Rom::Off, Some(false))),
    ];
    for (text, adapters) in cases {
        assert_eq!(with("device", text).map(|config| config.adapters), Ok(adapters), "{text}");
    }
    assert!(toml("device = ['01:00.0,vga=on', 'vfio-user:a,vga=on']").is_ok(), "the guest hands it over");
    let twice = toml("device = ['01:00.0', 'vfio:0000:01:00.0,vga=off']").unwrap_err();
    assert!(twice.ends_with("0000:01:00.0 is given twice"), "{twice}");
}

#[test]
fn windows_and_phases_are_read() {
    let windows = [
        ("strict", Window::Strict),
        ("coalesced", Window::Coalesced),
        ("shadowed", Window::Shadowed),
        ("auto", Window::Auto),
    ];
    for (text, window) in windows {
        assert_eq!(with("window", text).map(|config| config.window), Ok(window), "{text}");
    }
    for (text, phase) in [("auto", Phase::Auto), ("legacy", Phase::Legacy), ("native", Phase::Native)] {
        let config = with("device", &format!("01:00.0,vga=on,phase={text}")).unwrap();
        let Adapters::Given(devices) = config.adapters else { panic!("{text}") };
        assert_eq!(devices.iter().map(|device| device.phase).collect::<Vec<_>>(), [phase], "{text}");
    }
}

#[test]
fn a_phase_that_the_window_excludes_is_refused() {
    let both = |window: &str, device: &str| {
        toml(&format!("window = '{window}'\ndevice = ['01:00.0', '{device}']")).map(drop)
    };
    for (window, phase) in [("strict", "legacy"), ("coalesced", "native"), ("shadowed", "native")] {
        let problem = both(window, &format!("02:00.0,phase={phase}")).unwrap_err();
        let expected = format!(
            "window: {window} and phase={phase} (of 0000:02:00.0) exclude each other; leave one of them out"
        );
        assert!(problem.ends_with(&expected), "{problem}");
        assert_eq!(both(window, &format!("02:00.0,vga=off,phase={phase}")), Ok(()));
        assert_eq!(both("auto", &format!("02:00.0,phase={phase}")), Ok(()));
    }
    assert_eq!(both("strict", "02:00.0,phase=native"), Ok(()));
    assert_eq!(both("coalesced", "02:00.0,phase=legacy"), Ok(()));
}

#[test]
fn huge_pages_hold_all_of_the_memory() {
    let pages = |text: &str| toml(text).map(|config| config.pages);
    assert_eq!(pages("hugepages = '2M'"), Ok(Pages::Huge2M));
    assert_eq!(pages("hugepages = '1G'\nmemory = '4G'"), Ok(Pages::Huge1G));
    let misfit = pages("hugepages = '1G'\nmemory = '1536M'").unwrap_err();
    assert!(misfit.ends_with("memory of 1536 MiB is no whole number of pages of 1 GiB"), "{misfit}");
    // 2 GiB lie below the hole, 1 GiB and a half above it.
    assert!(pages("hugepages = '1G'\nmemory = '3584M'").is_err());
    let bare = clap::Parser::try_parse_from(["x", "--hugepages"]).map(|Bare { options }| options.hugepages);
    assert_eq!(bare.unwrap().as_deref(), Some("2M"));
}

#[derive(clap::Parser)]
struct Bare {
    #[command(flatten)]
    options: Options,
}

#[test]
fn what_only_the_card_shows_can_not_be_written() {
    for option in ["screenshot = 's.png'", "screen-text = '-'", "keys = '<wait-text:login>a'"] {
        let problem = toml(&format!("device = '01:00.0'\n{option}")).unwrap_err();
        assert!(problem.contains("the screen is the assigned card's own"), "{problem}");
        assert!(toml(&format!("device = ['01:00.0', 'vfio-user:a']\n{option}")).is_ok());
        assert!(toml(&format!("device = 'none'\n{option}")).is_ok());
    }
    assert!(toml("device = '01:00.0'\nkeys = '<wait:1>a'").is_ok());
}

#[test]
fn disks_are_read_in_order() {
    let config = toml("disk = ['a', 'b,readonly', 'c,,d']").unwrap();
    let disk = |path: &str, readonly| Disk { path: path.into(), readonly };
    assert_eq!(config.disks, [disk("a", false), disk("b", true), disk("c,d", false)]);
}

#[test]
fn the_other_values_are_read() {
    let config = toml(
        "cpus = 255\nphys-bits = 46\nfirmware = 'bios'\nkernel = 'k'\ninitrd = 'i'\nappend = '-x'\nserial = 'log'\n\
         debugcon = 'd'\nscreen = 'none'\nscreenshot = 's.png'\nscreen-text = '-'\nreport = 'r.json'\ntimeout = 0.25\n\
         io = 'uring'\nwindow = 'strict'\nkeys = 'a'\ntrace = 't.json'\ntrace-filter = ['bar=1', 'port=80']\n\
         seccomp = 'log'",
    )
    .unwrap();
    let expected = RunConfig {
        adapters: Adapters::Software,
        cpus: 255,
        memory: 1 << 30,
        pages: Pages::Transparent,
        phys_bits: Some(46),
        vfio: Interface::Auto,
        identity: Identity::Off,
        firmware: Some("bios".into()),
        disks: Vec::new(),
        linux: Some(Linux { kernel: "k".into(), initrd: Some("i".into()), append: "-x".into() }),
        serial: Serial::File("log".into()),
        debugcon: Some("d".into()),
        screen: Screen::None,
        screenshot: Some("s.png".into()),
        screen_text: Some(TextOutput::Stdout),
        report: Some(ReportFiles { json: "r.json".into(), markdown: "r.md".into() }),
        timeout: Some(Duration::from_millis(250)),
        io: Io::Uring,
        window: Window::Strict,
        keys: Some(Script { steps: vec![Step::Press(Key::new(KeyCode::Char('a')))] }),
        trace: Some(TraceOutput { path: "t.json".into(), form: TraceForm::Perfetto }),
        trace_filters: vec![
            TraceFilter { bar: Some(1), ..TraceFilter::default() },
            TraceFilter { ports: Span::new(Port(0x80), Port(0x80)), ..TraceFilter::default() },
        ],
        seccomp: Seccomp::Log,
    };
    assert_eq!(config, expected);
    assert_eq!(with("timeout", "5").unwrap().timeout, Some(Duration::from_secs(5)));
    assert_eq!(with("seccomp", "off").unwrap().seccomp, Seccomp::Off);
    assert_eq!(with("serial", "none").unwrap().serial, Serial::None);
    assert_eq!(with("screen-text", "a").unwrap().screen_text, Some(TextOutput::File("a".into())));
    assert_eq!(with("io", "inline").unwrap().io, Io::Inline);
}

const FORMS: &str = "give the PCI address of a function of this host, as 0000:01:00.0 (trapline devices lists them), \
                     vfio-user:SOCKET, or none for a machine without an adapter";

#[test]
fn values_that_can_not_be_used_say_why() {
    let address = |text: &str| text.parse::<crate::host::PciAddress>().unwrap_err().to_string();
    let (no_function, high_device, high_function) =
        (address("01:00"), address("01:20.0"), address("01:00.8"));
    let nonsense = |shown: &str| format!("{shown} is no device; {FORMS}");
    let rule = |shown: &str| {
        format!(
            "{shown} is no rule of a filter; give function=NAME, bar=N, port=A-B or address=A-B, several separated by \
             commas"
        )
    };
    let range = |given: &str, key: &str| {
        format!("{given} is no range; give two hexadecimal numbers, the lower first, as {key}=3c0-3df")
    };
    let cases: &[(&str, &str, &str)] = &[
        (
            "memory",
            "3",
            "3 bytes is less than the least guest memory, 16 MiB (a bare number counts bytes); give for example 512M",
        ),
        ("memory", "8M", "8 MiB is less than the least guest memory, 16 MiB; give for example 512M"),
        ("memory", "5T", "more than the largest guest memory, 4 TiB"),
        ("memory", "99999999999999999999", "more than the largest guest memory, 4 TiB"),
        ("memory", "18446744073709551615T", "more than the largest guest memory, 4 TiB"),
        ("memory", "16781312", "not a multiple of 1 MiB"),
        ("memory", "1Q", "'q' is no unit of memory; use K, M, G or T, as in 512M"),
        ("memory", "1.5G", "not a size; give a whole number and a unit, as in 512M"),
        ("memory", "-1G", "not a size; give a whole number and a unit, as in 512M"),
        ("memory", "G", "not a size; give a whole number and a unit, as in 512M"),
        ("cpus", "0", "not a number of processors; give 1 to 255"),
        ("cpus", "256", "not a number of processors; give 1 to 255"),
        ("cpus", "two", "not a number of processors; give 1 to 255"),
        ("device", "nonsense", &nonsense("nonsense")),
        ("device", "a b", &nonsense("\"a b\"")),
        ("device", "01:00", &no_function),
        ("device", "01:20.0,vga=on", &high_device),
        ("device", "vfio:01:00.8", &high_function),
        (
            "device",
            "01:00.0,root-port=maybe",
            "root-port=maybe is not known; give root-port=on or root-port=off",
        ),
        ("hugepages", "4M", "not a size of huge pages; give 2M or 1G"),
        ("hugepages", "", "not a size of huge pages; give 2M or 1G"),
        ("phys-bits", "35", "not a number of address bits; give 36 to 52"),
        ("vfio", "cdev", "not known; give auto, group or iommufd"),
        ("device", "vfio-user:", "vfio-user: needs the path of a socket"),
        ("device", "vfio-user:a,vga=yes", "vga=yes is not known; give vga=on, vga=off or vga=auto"),
        ("device", "vfio-user:a,vga", "vga= is not known; give vga=on, vga=off or vga=auto"),
        ("device", "vfio-user:a,vga=on,vga=on", "vga is given twice"),
        ("device", "vfio-user:a,rom=", "rom= needs a file, or off"),
        (
            "device",
            "vfio-user:a,speed=1",
            "speed is no option of a device; there are vga=, rom=, root-port=, msi=, phase=, identity=, \
             gpudirect-clique= and arbiter=",
        ),
        ("device", "none,vga=on", "none takes no options"),
        ("disk", ",readonly", "the file is not named"),
        (
            "disk",
            "a,ro",
            "ro is no option of a disk; there is readonly (a comma in a file's name is written twice)",
        ),
        ("disk", "a,readonly,readonly", "readonly is given twice"),
        ("serial", "", "give stdio, none or a file"),
        ("firmware", "", "the file is not named"),
        ("firmware", "a\0b", "a path cannot hold a NUL"),
        ("screen", "on", "not known; give auto or none"),
        ("screen-text", "", "the file is not named"),
        ("timeout", "0", "not a time; give seconds above 0, as in 2.5"),
        ("timeout", "-1", "not a time; give seconds above 0, as in 2.5"),
        ("timeout", "1e-12", "not a time; give seconds above 0, as in 2.5"),
        ("timeout", "NaN", "not a time; give seconds above 0, as in 2.5"),
        ("timeout", "inf", "not a time; give seconds above 0, as in 2.5"),
        ("timeout", "5s", "not a time; give seconds above 0, as in 2.5"),
        ("io", "fast", "not known; give inline, uring or adaptive"),
        ("window", "lax", "not known; give strict, coalesced, shadowed or auto"),
        ("keys", "<f13>", "<f13> is no key"),
        ("append", "a\0", "a kernel command line cannot hold a NUL"),
        ("trace", "", "the file is not named"),
        ("trace", "a,format=xml", "format=xml is not known; give format=perfetto or format=mmiotrace"),
        ("trace", "a,format=perfetto,format=perfetto", "format is given twice"),
        (
            "trace",
            "a,b",
            "b is no option of a trace; there is format= (a comma in a file's name is written twice)",
        ),
        ("trace-filter", "vga", &rule("vga")),
        ("trace-filter", "bar=1,", &rule("\"\"")),
        ("trace-filter", "bar=6", "bar=6 is no BAR; give bar=0 to bar=5"),
        ("trace-filter", "bar=1,bar=1", "bar is given twice"),
        ("trace-filter", "function=", "function= needs a name, as adapter0"),
        ("trace-filter", "port=3df-3c0", &range("port=3df-3c0", "port")),
        ("trace-filter", "port=10000", &range("port=10000", "port")),
        ("trace-filter", "address=+5", &range("address=+5", "address")),
        ("trace-filter", "address=", &range("address=", "address")),
        ("trace-filter", "port=1,address=1", "no access is to a port and to an address; give two filters"),
    ];
    for (option, value, problem) in cases {
        let found = Options::from_toml(&format!("{option} = {}", toml::Value::from(*value))).unwrap();
        let message = RunConfig::new(found.clone(), None).unwrap_err().to_string();
        assert!(message.starts_with(&format!("--{option} ")), "{message}");
        assert!(message.ends_with(&format!(": {problem}")), "{message}\n{problem}");
        assert!(!message.contains('\n'), "{message}");
        let origin = Origin::File("vm.toml".into());
        let message = RunConfig::new(Options::default(), Some((origin, found))).unwrap_err().to_string();
        assert!(message.starts_with(&format!("vm.toml: {option} = ")), "{message}");
    }
}

#[test]
fn the_value_is_repeated_as_it_was_given() {
    let message = |value: &str| cli(|options| options.cpus = Some(value.into())).unwrap_err();
    assert_eq!(message("x"), "--cpus x: not a number of processors; give 1 to 255");
    assert_eq!(message(""), "--cpus \"\": not a number of processors; give 1 to 255");
    assert_eq!(message("a\nb"), "--cpus \"a\\nb\": not a number of processors; give 1 to 255");
    assert!(message(&"9".repeat(100_000)).len() < 200);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let cases = [
        ("initrd = 'i'", "vm.toml: initrd: is for a kernel; give --kernel FILE too"),
        ("append = 'a'", "vm.toml: append: is for a kernel; give --kernel FILE too"),
        ("trace-filter = 'bar=0'", "vm.toml: trace-filter: is for a trace; give --trace FILE too"),
        (
            "device = ['none', 'vfio-user:a']",
            "vm.toml: device: none cannot be given together with another device",
        ),
        ("device = ['none', 'none']", "vm.toml: device: none cannot be given together with another device"),
    ];
    for (text, message) in cases {
        assert_eq!(toml(text), Err(message.to_owned()), "{text}");
    }
    let long = "x".repeat(2048);
    assert!(with("append", &long).unwrap_err().ends_with(": 2048 bytes; a kernel reads at most 2047"));
}

#[test]
fn the_command_line_comes_before_the_file() {
    let file = "memory = '2G'\ncpus = 4\ndisk = ['a', 'b']\nkernel = 'k'\nserial = 'stdio'";
    let file = Options::from_toml(file).unwrap();
    let cli = Options {
        memory: Some("512M".into()),
        disk: vec!["c".into()],
        append: Some("quiet".into()),
        ..Options::default()
    };
    let config = RunConfig::new(cli, Some((Origin::File("vm.toml".into()), file))).unwrap();
    assert_eq!((config.memory, config.cpus, config.serial), (512 << 20, 4, Serial::Stdio));
    assert_eq!(config.disks, [Disk { path: "c".into(), readonly: false }]);
    let linux = Linux { kernel: "k".into(), initrd: None, append: "quiet".into() };
    assert_eq!(config.linux, Some(linux), "what belongs together may come from both");
}

#[test]
fn a_file_that_is_wrong_says_where() {
    let cases = [
        ("memory = '2G'\ncpu = 1", "line 2: unknown field `cpu`, expected one of `device`, `cpus`, "),
        ("screen_text = 'a'", "line 1: unknown field `screen_text`, expected one of "),
        ("config = 'a'", "line 1: unknown field `config`"),
        ("\n\nmemory =", "line 3: "),
        ("cpus = true", "line 1: invalid type: boolean `true`, expected a string or a number"),
        ("cpus = ['1']", "line 1: invalid type: sequence, expected a string or a number"),
        ("disk = 1", "line 1: invalid type: integer `1`, expected a string or a list of strings"),
        ("[run]\ncpus = 1", "line 1: unknown field `run`"),
        ("cpus = 1\ncpus = 2", "line 2: duplicate key"),
    ];
    for (text, problem) in cases {
        let message = Options::from_toml(text).unwrap_err();
        assert!(message.starts_with(problem), "{message}\n{problem}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// The names of all options, from the one place that has them.
fn names() -> Vec<String> {
    use clap::Args;
    let command = Options::augment_args(clap::Command::new("run"));
    command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
}

#[test]
fn the_file_has_the_names_of_the_command_line() {
    assert_eq!(names().len(), 25);
    for name in names() {
        assert!(Options::from_toml(&format!("{name} = 'x'")).is_ok(), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn text_comes_through_a_file_as_it_is(value: String, list: Vec<String>) {
        let mut table = toml::Table::new();
        table.insert("append".into(), value.clone().into());
        table.insert("screen-text".into(), value.clone().into());
        table.insert("disk".into(), list.clone().into());
        let options = Options::from_toml(&table.to_string()).unwrap();
        let expected = Options { append: Some(value.clone()), screen_text: Some(value), disk: list, ..Options::default() };
        proptest::prop_assert_eq!(options, expected);
    }

    #[test]
    fn any_value_is_taken_or_refused_in_one_line(value in "(\\PC|[0-9<>,.:=-]|vfio-user:|<wait|rom=){0,12}") {
        for name in names() {
            let table = toml::Table::from_iter([(name.clone(), value.clone().into())]);
            let options = Options::from_toml(&table.to_string()).unwrap();
            if let Err(error) = RunConfig::new(options, None) {
                let message = error.to_string();
                let start = format!("--{name}");
                proptest::prop_assert!(message.starts_with(&start) && !message.contains('\n'), "{}", message);
            }
        }
    }
}
