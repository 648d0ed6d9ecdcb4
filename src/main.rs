//! Parse, run, exit code.

use std::process::ExitCode;

use aichat::cli::Cli;
use aichat::config;

fn main() -> ExitCode {
    // Before the runtime, because it changes the environment, which threads may read.
    if let Err(error) = config::load_dotenv() {
        return fail(&error.into());
    }
    let cli: Cli = config::command_line(std::env::args_os());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn fail(error: &anyhow::Error) -> ExitCode {
    let text = format!("{error:#}");
    // With RUST_BACKTRACE set candle's errors carry their backtrace in their text.
    eprintln!("error: {}", text.split("\n   0: ").next().unwrap_or(&text));
    ExitCode::FAILURE
}
