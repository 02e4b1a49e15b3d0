//! Arguments → configuration → logging → run → exit code.

use std::path::PathBuf;
use tenure::{config, daemon};

fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let path = PathBuf::from(&args[args.iter().position(|a| a == "-c").unwrap() + 1]);
    let ready = args.iter().position(|a| a == "--ready-file").map(|i| PathBuf::from(&args[i + 1]));
    match config::load(Some(&path), &config::Overrides::default()) {
        Ok((c, _)) => daemon::run(c, &daemon::Options { ready_file: ready }),
        Err(r) => {
            eprintln!("{r}");
            std::process::ExitCode::from(3)
        }
    }
}
