//! Scans all processes of the machine. No process can block the scan.
//!
//! A process within execve(2) blocks a thread that reads its open files, without a limit. The scan leaves that thread behind. It ends
//! with this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a thread may take for one process before another thread goes on with the rest.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many threads may be left behind.
const LEFT_BEHIND: usize = 64;

/// What `look` returns for each process, in any order. Its argument is the process's directory in `/proc`.
pub(super) fn scan<T: Send + 'static>(look: impl Fn(&Path) -> Option<T> + Send + Sync + 'static) -> Vec<T> {
    let all: Vec<PathBuf> =
        fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    at_each(all, look)
}

fn at_each<T: Send + 'static>(
    all: Vec<PathBuf>,
    look: impl Fn(&Path) -> Option<T> + Send + Sync + 'static,
) -> Vec<T> {
    let (look, left, (tell, told)) = (Arc::new(look), Arc::new(Mutex::new(all)), channel());
    let next = |left: &Mutex<Vec<PathBuf>>| left.lock().ok().and_then(|mut left| left.pop());
    let mut found = Vec::new();
    for _ in 0..LEFT_BEHIND {
        let (look, rest, tell) = (look.clone(), left.clone(), tell.clone());
        let thread = move || {
            while let Some(process) = next(&rest) {
                let _ = tell.send(Some(look(&process)));
            }
            let _ = tell.send(None);
        };
        if std::thread::Builder::new().spawn(thread).is_err() {
            break;
        }
        loop {
            match told.recv_timeout(PATIENCE) {
                Ok(Some(came)) => found.extend(came),
                Ok(None) => return found,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_left_out() {
        let all = ["/a", "/hangs", "/b", "/hangs", "/c"].map(PathBuf::from).to_vec();
        let (_never, forever) = channel::<()>();
        let forever = Mutex::new(forever);
        let mut found = at_each(all, move |process| {
            if process == Path::new("/hangs") {
                let _ = forever.lock().map(|forever| forever.recv());
            }
            Some(process.to_path_buf())
        });
        found.sort();
        assert_eq!(found, ["/a", "/b", "/c"].map(PathBuf::from));
    }
}
