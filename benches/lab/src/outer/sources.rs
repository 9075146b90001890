//! The machine's own package sources: where its distribution's packages come from, and who signs them.
//!
//! They are only read. Both forms of sources.list(5) are known: one line each, and deb822.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// One archive of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it lies.
    pub uri: String,
    /// Its suites that the machine uses.
    pub suites: Vec<String>,
    /// Their parts.
    pub components: Vec<String>,
    /// What is trusted, if not everything in apt's own key rings: a file, or a key.
    pub signed_by: Option<String>,
}

/// The distribution of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `debian`, `ubuntu`, ...
    pub id: String,
    /// The name of the release, as `bookworm`.
    pub codename: String,
    /// The archive of the distribution, and the suite in it that is the release.
    pub source: Source,
}

impl Release {
    /// Reads the os-release file and apt's sources below `root`, which is `/` but for tests.
    pub fn find(root: &Path) -> Result<Self> {
        let about = std::fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
        let value = |key: &str| {
            let line = about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim().trim_matches('"').to_owned())
        };
        let id = value("ID").unwrap_or_default();
        let Some(codename) = value("VERSION_CODENAME") else {
            bail!(
                "/etc/os-release names no VERSION_CODENAME: only Debian and its kin have packages for the lab"
            )
        };
        let sources = sources(root);
        // The release's name first; who follows a moving suite has only that.
        let words = [codename.as_str(), "stable", "testing", "unstable", "sid", "oldstable"];
        let found = words.iter().find_map(|word| {
            let has = |source: &&Source| {
                source.suites.iter().any(|suite| suite == word)
                    && source.components.iter().any(|component| component == "main")
            };
            let source = sources.iter().find(has)?.clone();
            Some(Source { suites: vec![(*word).to_owned()], ..source })
        });
        match found {
            Some(source) => Ok(Release { id, codename, source }),
            None => bail!("apt's sources have no suite {codename} with the component main"),
        }
    }
}

/// All binary sources below `root`, in apt's order of files. What cannot be read is not there.
fn sources(root: &Path) -> Vec<Source> {
    let apt = root.join("etc/apt");
    let mut parts: Vec<PathBuf> = std::fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    parts.sort();
    let files = std::iter::once(apt.join("sources.list")).chain(parts);
    files
        .flat_map(|file| {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => text.lines().filter_map(of_line).collect(),
                Some("sources") => of_stanzas(&text),
                _ => Vec::new(),
            }
        })
        .collect()
}

/// `deb [signed-by=FILE] URI SUITE COMPONENT...`
fn of_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim().strip_prefix("deb")?;
    let (options, rest) = match line.trim_start().strip_prefix('[') {
        Some(bracket) => bracket.split_once(']')?,
        None => ("", line.strip_prefix(char::is_whitespace)?),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// Stanzas of `Key: value`, in which a line that starts with a blank goes on with the one before.
fn of_stanzas(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).filter_map(of_stanza).collect()
}

fn of_stanza(lines: &[&str]) -> Option<Source> {
    let value = |key: &str| {
        let is_key =
            |line: &str| line.split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case(key));
        let at = lines.iter().position(|line| !line.starts_with([' ', '\t']) && is_key(line))?;
        let mut value = lines[at].split_once(':')?.1.trim().to_owned();
        for more in lines[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t'])) {
            // A key among the text keeps its lines, which is how it goes into the stanza of the lab.
            value.push('\n');
            value.push_str(more);
        }
        Some(value)
    };
    let words = |key: &str| -> Vec<String> {
        value(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let is_off = value("Enabled").is_some_and(|value| ["no", "false", "0"].contains(&value.trim()));
    if is_off || !words("Types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uri: words("URIs").into_iter().next()?,
        suites: words("Suites"),
        components: words("Components"),
        signed_by: value("Signed-By"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_CODENAME=bookworm\n";

    #[test]
    fn the_archive_of_the_release_is_found_among_others() {
        let root = machine(&[
            ("etc/os-release", BOOKWORM),
            ("etc/apt/sources.list.d/a.list", "deb https://others.example/apt tool-bookworm main\n"),
            (
                "etc/apt/sources.list.d/debian.sources",
                "Types: deb deb-src\n# a remark\nURIs: http://mirror.example/debian\n\
                 Suites: bookworm bookworm-updates\nComponents: main contrib\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                 Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\
                 Components: main\n",
            ),
        ]);
        let release = Release::find(root.path()).unwrap();
        assert_eq!((release.id.as_str(), release.codename.as_str()), ("debian", "bookworm"));
        assert_eq!(release.source.uri, "http://mirror.example/debian");
        assert_eq!(release.source.suites, ["bookworm"]);
        let ring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        assert_eq!(release.source.signed_by.as_deref(), Some(ring));
    }

    #[test]
    fn the_old_form_has_one_line_each() {
        let list = "# deb http://old.example/ bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.example/debian/ bookworm main # x\n";
        let root = machine(&[("etc/os-release", BOOKWORM), ("etc/apt/sources.list", list)]);
        let source = Release::find(root.path()).unwrap().source;
        assert_eq!(source.uri, "http://mirror.example/debian/");
        assert_eq!(source.components, ["main"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn a_moving_suite_is_taken_where_the_name_is_not_used() {
        let root = machine(&[
            ("etc/os-release", "ID=debian\nVERSION_CODENAME=\"forky\"\n"),
            ("etc/apt/sources.list", "deb http://mirror.example/debian testing main\n"),
        ]);
        assert_eq!(Release::find(root.path()).unwrap().source.suites, ["testing"]);
    }

    #[test]
    fn a_source_that_is_switched_off_is_none_and_a_key_may_stand_in_the_text() {
        let off = "Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n";
        let on = "Types: deb\nURIs: http://on.example\nSuites: bookworm\nComponents: main\nSigned-By:\n \
                  -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n";
        let root = machine(&[
            ("etc/os-release", BOOKWORM),
            ("etc/apt/sources.list.d/x.sources", &format!("{off}\n{on}")),
        ]);
        let source = Release::find(root.path()).unwrap().source;
        assert_eq!(source.uri, "http://on.example");
        assert_eq!(source.signed_by.as_deref(), Some("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc"));
    }

    #[test]
    fn a_machine_without_such_an_archive_is_told_so() {
        let root = machine(&[("etc/os-release", BOOKWORM)]);
        let error = Release::find(root.path()).unwrap_err().to_string();
        assert_eq!(error, "apt's sources have no suite bookworm with the component main");
        assert!(Release::find(machine(&[]).path()).is_err());
    }
}
