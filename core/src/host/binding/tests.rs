//! Binding with a kernel that tests write: a file tree in which drivers take and leave functions.

use super::*;
use crate::host::Host;
use crate::host::fake::Fake;

const CARD: &str = "0000:01:00.0";
const AUDIO: &str = "0000:01:00.1";
const PORT: &str = "0000:00:01.0";

/// A write that fails: the end of the file's name, what is written, how.
type Fails = (String, String, fn() -> WriteError);

/// What drivers do when they are written to.
struct Drivers<'a> {
    fake: &'a Fake,
    /// The host's own driver of each function.
    native: Vec<(&'a str, &'a str)>,
    fails: Vec<Fails>,
    log: Vec<String>,
}

fn hung() -> WriteError {
    WriteError::Hung { pid: 99, seconds: 15 }
}

fn refused() -> WriteError {
    WriteError::Refused(std::io::Error::from_raw_os_error(22))
}

impl Drivers<'_> {
    fn driver_link(address: &str) -> String {
        format!("sys/bus/pci/devices/{address}/driver")
    }

    fn attach(&self, address: &str, driver: &str) {
        self.fake.link(&Self::driver_link(address), &format!("../../../bus/pci/drivers/{driver}"));
    }

    fn probe(&self, address: &str) {
        let tree = self.fake.tree();
        if tree.link(Self::driver_link(address)).is_some() {
            return;
        }
        let only = Function::read(tree, address.parse().unwrap()).unwrap().driver_override;
        let native =
            self.native.iter().find(|(known, _)| *known == address).map(|(_, driver)| (*driver).to_owned());
        if let Some(driver) = only.or(native) {
            self.attach(address, &driver);
        }
    }
}

impl Kernel for Drivers<'_> {
    fn write(&mut self, file: &str, text: &str) -> Result<(), WriteError> {
        self.log.push(format!("{file} = {}", text.trim()));
        if let Some((.., how)) = self.fails.iter().find(|(end, what, _)| file.ends_with(end) && text == what)
        {
            return Err(how());
        }
        match file.rsplit('/').next().unwrap() {
            "driver_override" => {
                let text = if text == NOTHING { "(null)\n" } else { text };
                std::fs::write(self.fake.root().join(file), text).unwrap();
            }
            "unbind" => std::fs::remove_file(self.fake.root().join(Self::driver_link(text))).unwrap(),
            "bind" => self.attach(text, file.rsplit('/').nth(1).unwrap()),
            "drivers_probe" => self.probe(text),
            other => panic!("{other}"),
        }
        Ok(())
    }

    fn load(&mut self, module: &str) -> Result<(), WriteError> {
        self.log.push(format!("load {module}"));
        Err(WriteError::NoModule(module.into()))
    }
}

/// A card with its audio function behind a root port, all in group 13.
fn card() -> Fake {
    let fake = Fake::new();
    fake.function(PORT, "8086:1901", 0x06_0400, Some("pcieport"), Some(13));
    fake.function(CARD, "10de:1b80", 0x03_0000, Some("nouveau"), Some(13));
    fake.function(AUDIO, "10de:10f0", 0x04_0300, Some("snd_hda_intel"), Some(13));
    fake.function("0000:02:00.0", "8086:10d3", 0x02_0000, Some("e1000e"), Some(14));
    fake.write("sys/bus/pci/drivers/vfio-pci/bind", "");
    fake
}

fn drivers(fake: &Fake) -> Drivers<'_> {
    Drivers {
        fake,
        native: vec![(CARD, "nouveau"), (AUDIO, "snd_hda_intel")],
        fails: Vec::new(),
        log: Vec::new(),
    }
}

fn wish(addresses: &[&str]) -> Wish {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Wish { addresses, companions: true, force: false }
}

fn host(fake: &Fake) -> Host {
    Host::read(fake.tree().clone())
}

fn state(fake: &Fake) -> Vec<String> {
    let one = |function: &Function| {
        let only = function.driver_override.as_deref().map_or(String::new(), |name| format!(" only {name}"));
        format!("{} {}{only}", function.address, function.driver.as_deref().unwrap_or("none"))
    };
    host(fake).functions().iter().map(one).collect()
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_whole_group_goes_and_comes_back() {
    let fake = card();
    let before = state(&fake);
    let mut kernel = drivers(&fake);
    // The audio function alone is named; the card goes along, the port stays.
    let plan = Plan::bind(&host(&fake), &wish(&[AUDIO])).unwrap();
    let done = bind(fake.tree(), &plan, &mut kernel).unwrap();
    let bound = ["0000:01:00.0: nouveau -> vfio-pci", "0000:01:00.1: snd_hda_intel -> vfio-pci"];
    assert_eq!(lines(&done), bound);
    assert_eq!(
        state(&fake),
        [
            "0000:00:01.0 pcieport",
            "0000:01:00.0 vfio-pci only vfio-pci",
            "0000:01:00.1 vfio-pci only vfio-pci",
            "0000:02:00.0 e1000e"
        ]
    );
    // Once more is nothing.
    kernel.log.clear();
    let plan = Plan::bind(&host(&fake), &wish(&[CARD])).unwrap();
    let again = bind(fake.tree(), &plan, &mut kernel).unwrap();
    assert!(again.iter().all(|change| !change.is_one()) && kernel.log.is_empty(), "{:?}", kernel.log);
    assert_eq!(again[0].to_string(), "0000:01:00.0: vfio-pci, as before");

    let plan = Plan::unbind(&host(&fake), &wish(&[CARD])).unwrap();
    let done = unbind(fake.tree(), &plan, &mut kernel).unwrap();
    assert_eq!(
        lines(&done),
        ["0000:01:00.0: vfio-pci -> nouveau", "0000:01:00.1: vfio-pci -> snd_hda_intel"]
    );
    assert_eq!(state(&fake), before);
    let plan = Plan::unbind(&host(&fake), &wish(&[CARD])).unwrap();
    assert_eq!(
        lines(&unbind(fake.tree(), &plan, &mut kernel).unwrap()),
        ["0000:01:00.0: nouveau, as before"]
    );
    assert_eq!(state(&fake), before);
}

#[test]
fn only_the_named_function_goes_without_companions() {
    let fake = card();
    let alone = Wish { companions: false, ..wish(&[CARD, CARD]) };
    let plan = Plan::bind(&host(&fake), &alone).unwrap();
    let done = bind(fake.tree(), &plan, &mut drivers(&fake)).unwrap();
    assert_eq!(lines(&done), ["0000:01:00.0: nouveau -> vfio-pci"]);
}

#[test]
fn a_failure_puts_back_what_was_changed() {
    let fake = card();
    let before = state(&fake);
    for end in ["0000:01:00.1/driver/unbind", "drivers_probe", "0000:01:00.1/driver_override"] {
        let mut kernel = drivers(&fake);
        let text = if end.ends_with("override") { VFIO_PCI } else { AUDIO };
        kernel.fails.push((end.into(), text.into(), refused));
        let plan = Plan::bind(&host(&fake), &wish(&[CARD])).unwrap();
        let failure = bind(fake.tree(), &plan, &mut kernel).unwrap_err();
        assert_eq!(state(&fake), before, "{end}: {failure}");
        let text = failure.to_string();
        assert!(text.starts_with("0000:01:00.1: ") && text.contains("0000:01:00.0 nouveau"), "{text}");
        assert!(!text.contains('\n') && !text.contains("os error"), "{text}");
    }
}

#[test]
fn a_function_that_hangs_is_left_alone() {
    let fake = card();
    let mut kernel = drivers(&fake);
    kernel.fails.push(("0000:01:00.1/driver/unbind".into(), AUDIO.into(), hung));
    let plan = Plan::bind(&host(&fake), &wish(&[CARD])).unwrap();
    let text = bind(fake.tree(), &plan, &mut kernel).unwrap_err().to_string();
    assert!(text.contains("snd_hda_intel does not let go") && text.contains("process 99"), "{text}");
    let writes = kernel.log.iter().filter(|line| line.contains(&format!("{AUDIO}/"))).count();
    assert_eq!(writes, 2, "override, unbind, and nothing after it: {:?}", kernel.log);
    assert!(state(&fake).contains(&"0000:01:00.0 nouveau".to_owned()), "the card is back");
}

#[test]
fn a_driver_that_is_not_loaded_is_looked_for() {
    let fake = card();
    let mut kernel = drivers(&fake);
    let plan = Plan::bind(&host(&fake), &wish(&[CARD])).unwrap();
    bind(fake.tree(), &plan, &mut kernel).unwrap();
    kernel.native.clear();
    let plan = Plan::unbind(&host(&fake), &wish(&[CARD])).unwrap();
    let done = unbind(fake.tree(), &plan, &mut kernel).unwrap();
    assert_eq!(lines(&done)[0], "0000:01:00.0: vfio-pci -> no driver");
    assert!(kernel.log.contains(&"load PCI:V000010DED00001B80".to_owned()), "{:?}", kernel.log);
}

#[test]
fn vfio_pci_that_takes_it_again_is_told() {
    let fake = card();
    let mut kernel = drivers(&fake);
    let plan = Plan::bind(&host(&fake), &wish(&[CARD])).unwrap();
    bind(fake.tree(), &plan, &mut kernel).unwrap();
    kernel.native = vec![(CARD, VFIO_PCI)];
    let plan = Plan::unbind(&host(&fake), &wish(&[CARD])).unwrap();
    let text = unbind(fake.tree(), &plan, &mut kernel).unwrap_err().to_string();
    assert!(text.contains("ids="), "{text}");
}

#[track_caller]
fn refusal(fake: &Fake, wish: &Wish, words: &[&str]) {
    let text = Plan::bind(&host(fake), wish).unwrap_err().to_string();
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

#[test]
fn what_cannot_be_given_away_is_refused() {
    let fake = card();
    refusal(&fake, &wish(&["05:00.0"]), &["0000:05:00.0", "no such PCI function"]);
    refusal(&fake, &wish(&[PORT]), &[PORT, "bridge"]);
    fake.function("0000:00:1f.0", "8086:a305", 0x06_0100, Some("lpc_ich"), Some(13));
    refusal(&fake, &wish(&[CARD]), &["0000:00:1f.0", "lpc_ich", "another slot"]);
    let without = Fake::new();
    without.function(CARD, "10de:1b80", 0x03_0000, Some("nouveau"), None);
    refusal(&without, &wish(&[CARD]), &["there is no IOMMU"]);
}

#[test]
fn a_function_with_virtual_functions_is_refused_always() {
    let fake = card();
    fake.set(CARD, "sriov_numvfs", "2\n");
    for force in [false, true] {
        let wish = Wish { force, ..wish(&[CARD]) };
        refusal(&fake, &wish, &[CARD, "2 virtual functions", "echo 0 >", "sriov_numvfs"]);
    }
    fake.set(CARD, "sriov_numvfs", "0\n");
    assert!(Plan::bind(&host(&fake), &wish(&[CARD])).is_ok());
}

#[test]
fn what_the_host_uses_is_refused_unless_forced() {
    let forced = |addresses: &[&str]| Wish { force: true, ..wish(addresses) };
    let fake = card();
    fake.set(CARD, "boot_vga", "1\n");
    refusal(&fake, &wish(&[AUDIO]), &[CARD, "boot adapter", "--force"]);
    assert!(Plan::bind(&host(&fake), &forced(&[AUDIO])).is_ok());

    fake.set("0000:02:00.0", "net/eth0/operstate", "up\n");
    refusal(&fake, &wish(&["02:00.0"]), &["eth0", "--force"]);
    assert!(Plan::bind(&host(&fake), &forced(&["02:00.0"])).is_ok());

    fake.link("sys/dev/block/8:1", "../../devices/pci0000:00/0000:02:00.0/sda1");
    fake.write("sys/devices/pci0000:00/0000:02:00.0/sda1/dev", "8:1\n");
    fake.write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    refusal(&fake, &forced(&["02:00.0"]), &["/ is on it", "unmount"]);
}

#[test]
fn what_a_guest_has_is_not_taken_from_it() {
    let fake = card();
    let plan = Plan::bind(&host(&fake), &wish(&[CARD])).unwrap();
    bind(fake.tree(), &plan, &mut drivers(&fake)).unwrap();
    fake.write("proc/77/comm", "trapline\n");
    fake.link("proc/77/fd/5", "/dev/vfio/13");
    let text = Plan::unbind(&host(&fake), &wish(&[CARD])).unwrap_err().to_string();
    assert!(text.contains("process 77 (trapline)") && text.contains("--force"), "{text}");
    let forced = Wish { force: true, ..wish(&[CARD]) };
    assert!(Plan::unbind(&host(&fake), &forced).is_ok());
}
