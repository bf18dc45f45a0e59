use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_dropped_file_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = AtomicFile::create(&folder.path().join("a.bin"), IfExists::Refuse).unwrap();
    file.write_all(b"half").unwrap();
    drop(file);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn replacing_keeps_permissions_and_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    fs::write(&path, b"old").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    write_atomically(&path, b"new", IfExists::Replace).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.bin"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

#[test]
fn the_portable_form_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    for (text, replace) in [("one", false), ("two", true)] {
        let mut scratch = Scratch::hidden(folder.path()).unwrap();
        scratch.file().write_all(text.as_bytes()).unwrap();
        if replace {
            scratch.publish_over(&path).unwrap();
        } else {
            scratch.publish_new(&path).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    let mut scratch = Scratch::hidden(folder.path()).unwrap();
    assert_eq!(scratch.publish_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(publish_numbered(&mut scratch, &path).unwrap(), folder.path().join("a-2.bin"));
    drop(scratch);
    drop(Scratch::hidden(folder.path()).unwrap());
    assert_eq!(names(folder.path()), ["a-2.bin", "a.bin"]);
}

#[test]
fn threads_that_want_one_name_all_get_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("same.txt");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for i in 0..25 {
                    let text = format!("{thread} {i}");
                    let taken = write_atomically(path, text.as_bytes(), IfExists::Number).unwrap();
                    assert_eq!(fs::read_to_string(taken).unwrap(), text);
                }
            });
        }
    });
    assert_eq!(names(folder.path()).len(), 100);
}

#[test]
fn folders_missing_folders_and_taken_names_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &Path| write_atomically(path, b"x", IfExists::Refuse).unwrap_err();
    assert!(write(folder.path()).to_string().contains("is a folder"));
    let missing = write(&folder.path().join("no/where.txt"));
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().ends_with("create that folder first"), "{missing}");
    fs::write(folder.path().join("taken"), b"").unwrap();
    assert!(write(&folder.path().join("taken")).to_string().contains("exists already"));
    assert_eq!(names(folder.path()), ["taken"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_are_not_replaced() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    fs::write(&target, b"old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    write_atomically(&link, b"new", IfExists::Replace).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"new");
    write_atomically(Path::new("/dev/null"), b"gone", IfExists::Replace).unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn the_next_number_is_found_in_few_steps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for number in 1..=37 {
        fs::write(numbered(&path, number), b"").unwrap();
    }
    assert_eq!(first_free(|number| numbered(&path, number).exists()), 38);
}
