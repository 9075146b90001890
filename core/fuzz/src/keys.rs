//! The language of `--keys`: never more steps than characters, no wait without an end.

use trapline::config::{Script, Step};

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(text) = super::input::<&str>(data) else { return };
    let Ok(script) = text.parse::<Script>() else { return };
    assert!(script.steps.len() <= text.chars().count());
    for step in script.steps {
        match step {
            Step::Wait(time) => assert!(time.as_secs() <= 1_000_000),
            Step::WaitText(wanted) => assert!(!wanted.is_empty()),
            Step::Press(_) => {}
        }
    }
}
