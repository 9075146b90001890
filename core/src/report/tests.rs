//! Reports of runs that tests make up, and of functions of a host that a test builds.

use super::account::{self, Account};
use super::files::{self, Files};
use super::*;
use crate::config::{Options, ReportFiles, RunConfig};
use crate::host::Host;
use crate::host::fake::Fake;

const ADDRESS: &str = "0000:01:00.0";
/// What must never be told, wherever the host or the user has it.
const SECRETS: [&str; 9] = [
    "secret-host",
    "secret-user",
    "secret-disk",
    "secret-serial",
    "52:54:00:12:34:56",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    "S3CR3T",
    "10.1.2.3",
    "/home/",
];

fn function(ids: &str, first: Life) -> Function {
    Function {
        name: "Some Card".into(),
        ids: ids.into(),
        class: "030000".into(),
        first,
        ..Function::default()
    }
}

fn life() -> Life {
    Life { text: Some(false), graphics: Some(false), bars: Some(false), ..Life::default() }
}

fn report(runs: Vec<Vec<Function>>) -> Report {
    let run = |functions| Run { functions, end: "it ended".into(), clean: true, ..Run::default() };
    Report { runs: runs.into_iter().map(run).collect(), ..Report::default() }
}

/// The line of the table that tells of these ids.
fn line(page: &str, ids: &str) -> Vec<String> {
    let line = page.lines().find(|line| line.starts_with('|') && line.contains(ids)).unwrap();
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn runs_that_end_together_are_all_told() {
    let folder = tempfile::tempdir().unwrap();
    let files = ReportFiles { json: folder.path().join("r.json"), markdown: folder.path().join("r.md") };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let files = Files::open(&files).unwrap();
            scope.spawn(move || (0..4).for_each(|_| files.clone().add(Run::default()).unwrap()));
        }
    });
    assert_eq!(files::read(&files.json).unwrap().runs.len(), 32);
}

#[test]
fn what_worked_is_told_of_all_starts_together() {
    let text = Life { text: Some(true), rom: true, ..life() };
    let driven = Life { msix: true, bus_master: true, graphics: Some(true), ..text.clone() };
    let interrupts = Interrupts { offered: vec!["MSI-X".into()], msix: 7, ..Interrupts::default() };
    let again = Function {
        resets: 1,
        later: Some(Life { rom: true, ..life() }),
        interrupts,
        ..function("1af4:1050", driven)
    };
    let page = markdown::page(&report(vec![vec![function("1af4:1050", text)], vec![again]]));
    let cells = line(&page, "1af4:1050");
    let wanted = [
        "Some Card (1af4:1050, class 030000)",
        "yes",
        "yes",
        "yes",
        "enabled MSI-X",
        "MSI-X",
        "in part",
        "2, seen in all",
    ];
    assert_eq!(cells, wanted);
    assert!(page.contains("\n| 2, after a reset | yes | no | no | no | no | no / no | | | |\n"), "{page}");
}

#[test]
fn what_was_not_seen_is_not_made_up() {
    // Strict: what the window shows is not looked at.
    let dark = report(vec![vec![function("1234:11e8", Life::default())]; 2]);
    let wanted = [
        "Some Card (1234:11e8, class 030000)",
        "no",
        "-",
        "-",
        "none seen",
        "-",
        "-",
        "2, seen again in 0 of 1",
    ];
    assert_eq!(line(&markdown::page(&dark), "1234:11e8"), wanted);
    let offered = vec!["INTx".to_owned(), "MSI".to_owned()];
    let mut silent = function("1234:11e8", Life { bus_master: true, msi: true, ..life() });
    silent.interrupts = Interrupts { offered, trouble: Some("a|b".into()), ..Interrupts::default() };
    let page = markdown::page(&report(vec![vec![silent]]));
    let wanted = [
        "Some Card (1234:11e8, class 030000)",
        "no",
        "no",
        "-",
        "enabled MSI",
        "none counted, with trouble",
        "-",
        "1",
    ];
    assert_eq!(line(&page, "1234:11e8"), wanted);
    assert!(page.contains("Its interrupts: a\\|b"));
}

/// People pass reports on to each other.
#[test]
fn what_a_stranger_wrote_stays_in_its_place() {
    let most = Interrupts { intx: u64::MAX, ..Interrupts::default() };
    let strange = || Function { interrupts: most.clone(), ..function("1af4:1050\u{1b}[2J|x\n# y", life()) };
    let page = markdown::page(&report(vec![vec![strange()], vec![strange()]]));
    let line = line(&page.replace("\\|", "/"), "1af4:1050");
    assert_eq!((line.len(), &*line[5]), (8, "INTx"), "{page}");
    assert!(!page.contains('\u{1b}') && !page.contains("\n# y"), "{page}");
}

#[test]
fn two_of_a_kind_are_two() {
    let cards = || vec![function("10de:1c82", life()), function("10de:1c82", life())];
    let page = markdown::page(&report(vec![cards(), cards()]));
    assert_eq!(page.matches("\n## Some Card (10de:1c82, class 030000)\n").count(), 2);
    assert_eq!(page.matches("| 2, seen again").count(), 2);
}

#[test]
fn a_reset_is_told_by_what_was_there_before() {
    let before = Life { rom: true, msix: true, function_reset: true, ..life() };
    let after = |later| {
        let again = Function { resets: 1, later: Some(later), ..function("1af4:1050", before.clone()) };
        line(&markdown::page(&report(vec![vec![again]])), "1af4:1050")[6].clone()
    };
    assert_eq!(after(Life { text: Some(true), function_reset: false, ..before.clone() }), "yes");
    assert_eq!(after(Life { msix: false, ..before.clone() }), "in part");
    assert_eq!(after(life()), "no");
}

#[test]
fn a_mode_that_a_driver_may_have_set_unseen_is_not_denied() {
    let driven = Life { text: Some(true), bars: Some(true), ..life() };
    let of = |lives: [Life; 2]| {
        let page = markdown::page(&report(lives.map(|life| vec![function("1234:1111", life)]).to_vec()));
        line(&page, "1234:1111")[3].clone()
    };
    assert_eq!(of([driven.clone(), life()]), "-");
    assert_eq!(of([life(), Life { msix: true, ..life() }]), "-");
    assert_eq!(of([driven, Life { graphics: Some(true), ..life() }]), "yes");
    assert_eq!(of([life(), life()]), "no");
}

#[test]
fn what_has_the_same_ids_and_another_class_is_another() {
    let of = |class: &str| vec![Function { class: class.into(), ..function("1234:1111", life()) }];
    let page = markdown::page(&report(vec![of("030000"), of("038000"), of("030000")]));
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("| Some Card (1234:1111, ")).collect();
    assert_eq!(lines.len(), 2, "{page}");
    assert!(lines[0].ends_with("| 2, seen again in 0 of 1 |") && lines[1].ends_with("| 1 |"), "{page}");
}

#[test]
fn runs_are_added_to_a_file_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let names = |name: &str| ReportFiles {
        json: folder.path().join(format!("{name}.json")),
        markdown: folder.path().join(format!("{name}.md")),
    };
    let one = report(vec![vec![function("1234:1111", life())]]).runs.remove(0);
    for count in 1..=2 {
        Files::open(&names("a")).unwrap().add(one.clone()).unwrap();
        let read = files::read(&names("a").json).unwrap();
        assert_eq!(read.runs, vec![one.clone(); count]);
        assert_eq!(std::fs::read_to_string(names("a").markdown).unwrap(), markdown::page(&read));
    }
    std::fs::write(names("b").json, "{\"runs\": []}").unwrap();
    let problem = Files::open(&names("b")).unwrap_err();
    assert!(format!("{problem:#}").contains("it is no report"), "{problem:#}");
    assert_eq!(std::fs::read_to_string(names("b").json).unwrap(), "{\"runs\": []}", "it is left alone");
    std::fs::write(names("c").json, "{\"format\": 9}").unwrap();
    assert!(format!("{:#}", Files::open(&names("c")).unwrap_err()).contains("format 9"));
    assert!(Files::open(&ReportFiles { json: folder.path().join("no/a.json"), ..names("d") }).is_err());
}

#[test]
fn options_that_are_not_the_default_are_told() {
    let toml = "device = ['01:00.0,identity=stop', '02:00.0,identity=off']\nidentity = 'follow'\nphys-bits = 40\n\
                seccomp = 'log'";
    let config = RunConfig::new(Options::from_toml(toml).unwrap(), None).unwrap();
    let crate::config::Adapters::Given(devices) = &config.adapters else { unreachable!("two are given") };
    let accounts: Vec<Account> = devices.iter().map(|device| Account::example().asked(device)).collect();
    let fake = told_host();
    let run = account::run(&config, ("it ended", true), &accounts, &Host::read(fake.tree().clone()));
    let wanted = ["--cpus 1", "--memory 1024M", "--seccomp log", "--identity follow", "--phys-bits 40"];
    assert_eq!(run.options, wanted);
    assert_eq!(run.functions[0].options, ["identity=stop"]);
    assert_eq!(run.functions[1].options, ["identity=off"]);
}

/// A host and a user with everything that must stay there.
fn told_host() -> Fake {
    let fake = Fake::new();
    let [host, user, _, serial, mac, uuid, number, ip, _] = SECRETS;
    fake.function(ADDRESS, "8086:10d3", 0x02_0000, Some("vfio-pci"), Some(1));
    fake.set(ADDRESS, "serial_number", serial);
    fake.set(ADDRESS, "vpd", number);
    fake.set(ADDRESS, "net/eth0/address", mac);
    fake.write("proc/sys/kernel/hostname", host);
    fake.write("proc/version", format!("Linux version 6.12 ({user}@{host})"));
    fake.write("proc/sys/kernel/osrelease", "6.12.95-amd64\n");
    fake.write("proc/cpuinfo", format!("model name\t: Some CPU\nserial\t: {number}\nflags\t: fpu\n"));
    fake.write("etc/hostname", host);
    fake.write("etc/hosts", format!("{ip} {host}\n"));
    fake.write("etc/machine-id", uuid.replace('-', ""));
    fake.write("sys/class/dmi/id/product_uuid", uuid);
    fake.write("sys/class/dmi/id/board_serial", serial);
    fake
}

#[test]
fn nothing_tells_whose_machine_it_is() {
    let fake = told_host();
    let [_, user, disk, ..] = SECRETS;
    let home = format!("/home/{user}");
    let toml = format!(
        "device = ['{ADDRESS},rom={home}/a.rom', 'vfio-user:{home}/{disk}.sock']\nfirmware = '{home}/f'\n\
         disk = '{home}/{disk}.img'\nkernel = '{home}/k'\ninitrd = '{home}/i'\n\
         append = 'ip=10.1.2.3 host=secret-host'\nserial = '{home}/s'\ntrace = '{home}/t'\n\
         report = '{home}/r'\ndebugcon = '{home}/d'"
    );
    let config = RunConfig::new(Options::from_toml(&toml).unwrap(), None).unwrap();
    let crate::config::Adapters::Given(devices) = &config.adapters else { unreachable!("two are given") };
    let mut accounts: Vec<Account> = devices.iter().map(|device| Account::example().asked(device)).collect();
    accounts[0].address = Some(ADDRESS.parse().unwrap());
    let host = Host::read(fake.tree().clone());
    let run = account::run(&config, ("it ended", true), &accounts, &host);
    let report = Report { runs: vec![run], ..Report::default() };
    let (json, page) = (report.to_json().unwrap(), markdown::page(&report));
    for secret in SECRETS {
        assert!(!json.contains(secret), "{secret} is told: {json}");
        assert!(!page.contains(secret), "{secret} is told: {page}");
        let plain = secret.replace('-', "");
        assert!(!json.contains(&plain) && !page.contains(&plain), "{plain} is told");
    }
    // What is to be told is there: else this test could not fail.
    for wanted in ["6.12.95-amd64", "Some CPU", "8086:10d3", "rom=FILE", "--disk FILE", "--firmware FILE"] {
        assert!(json.contains(wanted) && page.contains(wanted), "{wanted} is not told: {page}");
    }
}
