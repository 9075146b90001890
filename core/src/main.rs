//! The program `trapline`. Everything it does is in the library; here is only the way in and out.

use std::process::ExitCode;

fn main() -> ExitCode {
    trapline::command::main(std::env::args_os())
}
