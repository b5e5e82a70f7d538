//! Databases: several writers, locks, shared mappings, writers that die, and direct I/O.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::sides::{Side, Sides, needs};
use crate::trees::{LIMIT, Times, nothing, said, same, script};

const TABLE: &str =
    "sqlite3 db 'pragma journal_mode = wal' 'create table t (id integer primary key, who text, what blob)'";

#[test]
fn sqlite_takes_two_writers_in_wal_mode() {
    needs!("sqlite3");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = format!(
        r#"{TABLE}
writer() {{ for n in $(seq 300); do echo "begin immediate; insert into t (who, what) values ('$1', randomblob(1000)); commit;"; done | sqlite3 -bail -cmd '.timeout 30000' db; }}
writer one & one=$!; writer two & two=$!
while kill -0 $one 2>/dev/null; do test "$(sqlite3 -cmd '.timeout 30000' db 'pragma quick_check')" = ok; done
wait $one; wait $two
sqlite3 db 'select who, count(*) from t group by who' 'pragma integrity_check' 'pragma wal_checkpoint(truncate)' 'vacuum' 'pragma integrity_check'
ls
"#
    );
    let (disk, mount) = sides.both(|side| said(&sides, side, &text));
    assert_eq!(disk, mount);
    assert_eq!(mount, "wal\none|300\ntwo|300\nok\n0|0|0\nok\ndb\n");
}

#[test]
fn sqlite_keeps_what_a_killed_writer_was_told() {
    needs!("sqlite3");
    let Some(sides) = Sides::new(LIMIT) else { return };
    for mode in ["wal", "delete", "truncate", "persist"] {
        let table = TABLE.replace("= wal", &format!("= {mode}"));
        script(&sides, Side::Mount, &format!("rm -f db*; {table}")).ok();
        let mut promised = 0;
        for round in 0..5 {
            // The program reports each row after the commit.
            let row = "insert into t (who, what) values ('w', randomblob(3000)); select max(id) from t;";
            let mut writer = Command::new("bash")
                .args([
                    "-c",
                    &format!("exec sqlite3 -bail -cmd 'pragma synchronous = full' db < <(yes \"{row}\")"),
                ])
                .current_dir(sides.at(Side::Mount))
                .env("CREWFS_WORKER", "suite")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let told = BufReader::new(writer.stdout.take().unwrap()).lines().map(|line| line.unwrap());
            let mut told = told.filter_map(|line| line.parse::<u64>().ok());
            let mut last = 0;
            for _ in 0..20 + 7 * round {
                last = told.next().expect("it writes until it is killed");
            }
            kill_process(Pid::from_child(&writer), Signal::KILL).unwrap();
            writer.wait().unwrap();
            promised = told.last().unwrap_or(last);
            let check = "sqlite3 db 'pragma integrity_check' 'select count(*), max(id) from t'";
            let checked = script(&sides, Side::Mount, check).ok();
            let rows: u64 = checked.trim().rsplit('|').next().unwrap().parse().unwrap();
            assert!(checked.starts_with("ok\n"), "{mode}: {checked}");
            // The row of the last commit may exist without its report.
            assert!((promised..=promised + 1).contains(&rows), "{mode}: {rows} of {promised}");
        }
        assert!(promised > 100, "{mode}");
    }
}

/// Random pages of a file are written and read with direct I/O and compared with a mirror in memory; then through the page cache and on
/// the disk.
const DIRECT: &str = r#"
import mmap, os, random, hashlib
random.seed(7)
fd = os.open("pages", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
cached = os.open("pages", os.O_RDWR)
page, PAGES = mmap.mmap(-1, 65536), 256
mirror = bytearray(4096 * PAGES)
os.ftruncate(fd, len(mirror))
for turn in range(1500):
    n = random.choice((1, 1, 1, 4, 16))
    at = random.randrange(PAGES - n) * 4096
    kind = random.random()
    if kind < 0.4:
        page[:n * 4096] = random.randbytes(n * 4096)
        assert os.pwritev(fd, [memoryview(page)[:n * 4096]], at) == n * 4096
        mirror[at:at + n * 4096] = page[:n * 4096]
    elif kind < 0.55:
        data = random.randbytes(random.randrange(1, 9000))
        data = data[:len(mirror) - at]
        os.pwrite(cached, data, at)
        mirror[at:at + len(data)] = data
    elif kind < 0.8:
        assert os.preadv(fd, [memoryview(page)[:n * 4096]], at) == n * 4096
        assert page[:n * 4096] == mirror[at:at + n * 4096], ("direct", turn)
    else:
        assert os.pread(cached, n * 4096, at) == mirror[at:at + n * 4096], ("cached", turn)
    if turn % 100 == 0:
        os.fdatasync(fd)
# What is at the end is read in part, and nothing behind it.
os.ftruncate(fd, 5000)
print(os.preadv(fd, [page], 0), os.preadv(fd, [page], 4096), os.preadv(fd, [page], 8192))
print(hashlib.sha256(bytes(mirror[:5000])).hexdigest() == hashlib.sha256(open("pages", "rb").read()).hexdigest())
"#;

#[test]
fn a_database_without_a_cache_reads_what_it_wrote() {
    needs!("python3");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let (disk, mount) = sides.both(|side| sides.run(side, "python3", ["-c", DIRECT]).ok());
    assert_eq!(disk, mount);
    assert_eq!(mount, "5000 904 0\nTrue\n");
    assert_eq!(
        fs::read(sides.beneath(Side::Disk).join("pages")).unwrap(),
        fs::read(sides.beneath(Side::Mount).join("pages")).unwrap()
    );
}

const MAPPED: &str = r#"
import mmap, multiprocessing, os
fd = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, 1 << 20)

def fill(part):
    with mmap.mmap(fd, 1 << 20) as m:
        for at in range(part, 1 << 20, 4096 * 4):
            m[at:at + 4] = part.to_bytes(4, "little")
        m.flush()

workers = [multiprocessing.Process(target=fill, args=(4096 * n + n,)) for n in range(4)]
[w.start() for w in workers]
[w.join() for w in workers]
with mmap.mmap(fd, 1 << 20) as m:
    found = [int.from_bytes(m[4096 * n + n:4096 * n + n + 4], "little") for n in range(4)]
    m.resize(2 << 20)
    m[(1 << 20) + 5] = 7
    m.flush()
print(found, os.fstat(fd).st_size, os.pread(fd, 8, (1 << 20)))
"#;

#[test]
fn python_processes_share_a_mapped_file() {
    needs!("python3");
    let Some(sides) = Sides::new(LIMIT) else { return };
    fs::write(sides.project.dir().join("mapped.py"), MAPPED).unwrap();
    let text = format!("python3 {}/mapped.py; md5sum mapped", sides.project.dir().display());
    let said = same(&sides, Times::Ignored, &text, &nothing);
    assert!(said.starts_with("[0, 4097, 8194, 12291] 2097152"), "{said}");
}
