//! Programs that copy whole trees, with all attributes of each file.

use crate::sides::{Side, Sides, needs};
use crate::trees::{LIMIT, Times, nothing, said, same, same_trees, script};

/// A tree with one file of each kind, outside of both sides.
const ORIGINAL: &str = r#"
rm -rf ../original; mkdir -p ../original/deep/er/still ../original/empty; cd ../original
echo text > a; head -c 3000000 /dev/urandom > deep/b; ln a hard; ln deep/b deep/er/hard-too; ln -s a soft; ln -s /nowhere deep/dangling
mkfifo pipe; truncate -s 4M sparse; printf end >> sparse; printf x | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
chmod 600 a; chmod 1777 empty; chmod 751 deep; echo 'odd name' > "$(printf 'a b\tc\n"quoted"\\ \303\244')"; : > zero
for n in $(seq 200); do echo $n > deep/er/still/f$n; done
[ "$(id -u)" != 0 ] || { chown 1234:4321 deep/b; setfattr -n trusted.t -v 1 a; mknod null c 1 3; chmod 4755 deep/er/still/f1; }
setfattr -n user.note -v 'some value' a; setfattr -n user.empty deep; setfacl -m u:7:rwx,g:8:r deep/er; setfacl -d -m u:7:rx deep/er
find . -exec touch -h -d 2001-02-03T04:05:06.123456789 {} +
"#;

/// Attributes of each file that the comparison does not cover otherwise.
const ATTRIBUTES: &str =
    "getfattr -Rhd -m - . 2>/dev/null | sed '/^$/d' | sort; getfacl -RPn . | sort | uniq -c";

#[test]
fn rsync_carries_everything_there_and_back() {
    needs!("rsync", "setfattr", "setfacl");
    let Some(sides) = Sides::new(LIMIT) else { return };
    script(&sides, Side::Disk, ORIGINAL).ok();
    let there =
        format!("rsync -aHAXS {}/original/ copy/; cd copy; {ATTRIBUTES}", sides.project.dir().display());
    same(&sides, Times::Compared, &there, &nothing);
    let again =
        format!("rsync -aHAX --checksum -n -i --delete {}/original/ copy/", sides.project.dir().display());
    assert_eq!(same(&sides, Times::Compared, &again, &nothing), "", "there is nothing left to be copied");
    let (disk, mount) = sides.both(|side| {
        let back = format!("{}/back-{side:?}", sides.project.dir().display());
        let text = format!(
            "rsync -aHAX --checksum copy/ {back}/; rsync -aHAX --checksum -n -i --delete copy/ {back}/
            echo changed >> copy/a; rsync -aHAX --checksum -i copy/ {back}/; cmp copy/a {back}/a; cd {back}; {ATTRIBUTES}"
        );
        said(&sides, side, &text)
    });
    assert_eq!(disk, mount);
    let inside = "rsync -aHAX --delete --inplace copy/ twice/; rsync -aHAX --link-dest=../copy copy/ linked/
        stat -c %h linked/deep/b; rm -r copy; ls -A";
    same(&sides, Times::Ignored, inside, &nothing);
}

#[test]
fn tar_packs_and_unpacks_everything() {
    needs!("tar", "setfattr", "setfacl");
    let Some(sides) = Sides::new(LIMIT) else { return };
    script(&sides, Side::Disk, ORIGINAL).ok();
    // Without the times that reading changes, and without tar's process id.
    let same_twice = "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime";
    let options = format!("--xattrs --xattrs-include=* --acls --numeric-owner --sort=name {same_twice}");
    let text = format!(
        "mkdir copy; tar {options} -C {0}/original -Scf - . | tar {options} -C copy -xpf -
        tar {options} -C copy -cf - . | md5sum; tar {options} -C {0}/original -cf - . | md5sum
        tar {options} -C copy -cf copy.tar .; tar -C copy --compare -f copy.tar; rm copy.tar; cd copy; {ATTRIBUTES}",
        sides.project.dir().display()
    );
    let said = same(&sides, Times::Ignored, &text, &nothing);
    let sums: Vec<_> = said.lines().take(2).collect();
    assert_eq!(sums[0], sums[1], "what was unpacked is what was packed");
    script(&sides, Side::Disk, "touch -d @0 copy").ok();
    script(&sides, Side::Mount, "touch -d @0 copy").ok();
    same_trees(&sides, Times::Compared, &nothing);
}

#[test]
fn cp_links_copies_and_moves_trees() {
    needs!("cp", "setfattr", "setfacl");
    let Some(sides) = Sides::new(LIMIT) else { return };
    script(&sides, Side::Disk, ORIGINAL).ok();
    let text = format!(
        "cp -a {0}/original copy; cp -al copy linked; find linked -type f -links +1 | wc -l; cp -a --reflink=auto --sparse=always copy third
        diff -r --no-dereference -x pipe -x null copy linked; diff -r --no-dereference -x pipe -x null copy third
        echo more >> linked/a; cat copy/a; rm -r linked; stat -c '%h %n' copy/a copy/deep/b; mv third moved; mv moved copy/inside
        cp -a copy/deep copy/inside/deep-again; cp -rT copy/deep plain; install -D -m 751 copy/a installed/there/a; cd copy; {ATTRIBUTES}",
        sides.project.dir().display()
    );
    same(&sides, Times::Ignored, &text, &nothing);
    // Copies between the sides, across which no file can be linked or renamed.
    let across = format!(
        "mv {}/copy ../../moved-out; cp -a ../../moved-out back; mv ../../moved-out .; ls",
        sides.at(Side::Mount).display()
    );
    let moved = script(&sides, Side::Mount, &across).ok();
    assert!(moved.contains("moved-out"), "{moved}");
}

#[test]
fn dd_writes_through_to_the_disk() {
    needs!("dd", "cmp");
    let Some(sides) = Sides::new(LIMIT) else { return };
    script(&sides, Side::Disk, "mkdir ../input; head -c 8388608 /dev/urandom > ../input/random").ok();
    let text = format!(
        "in={0}/input/random; dd if=$in of=synced bs=64k conv=fsync status=none; dd if=$in of=data bs=1M conv=fdatasync status=none
        dd if=$in of=direct bs=1M oflag=direct status=none; dd if=direct bs=128k iflag=direct status=none | cmp - $in
        dd if=$in of=every bs=256k oflag=dsync status=none; dd if=$in of=odd bs=777 count=999 status=none
        dd if=$in of=odd bs=1000 seek=3 skip=5 count=7 conv=notrunc status=none; dd if=$in of=odd oflag=append bs=512 count=3 conv=notrunc status=none
        dd if=/dev/zero of=sparse bs=1M count=3 conv=sparse status=none; truncate -s 3M sparse; du -k --apparent-size *; md5sum *",
        sides.project.dir().display()
    );
    same(&sides, Times::Ignored, &text, &nothing);
}
